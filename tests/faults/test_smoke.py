from tests.faults.rig import Rig


async def test_plain(it: Rig) -> None:
    await it.ready()
    await it.edit("v2")
    await it.assert_promoted()
    assert await it.writes_at_rest() == [], "x"
    print(it.story())
    print(it.replica.writes)
