# The controller's image. Nothing is installed that requirements.lock does not name with its hash, the build tool of the
# wheel included, and the base is named by its digest:
#
#     docker build --build-arg BASE=python:3.13-slim@sha256:... -t serin:0.1.0 .
#
# It runs as nobody, needs no writable file system, and holds its bill of materials in /opt/serin/sbom.cdx.json.
ARG BASE=python:3.13-slim

FROM ${BASE} AS build
ARG BASE
RUN case "$BASE" in *@sha256:*) ;; *) echo "give the base by digest: --build-arg BASE=$BASE@sha256:..." >&2; exit 1 ;; esac
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
COPY .ci/release_lock.py .ci/release_lock.py
RUN python .ci/release_lock.py build > build.lock && python .ci/release_lock.py runtime > runtime.lock
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes -r build.lock
RUN python -m venv /opt/serin && /opt/serin/bin/pip install --no-cache-dir --require-hashes -r runtime.lock
COPY controller controller
RUN /opt/build/bin/hatchling build -t wheel -d dist
RUN /opt/serin/bin/pip install --no-cache-dir --no-index --no-deps dist/*.whl
RUN python .ci/release_lock.py sbom > /opt/serin/sbom.cdx.json
# The image installs nothing any more (environments of Python 3.11 come with setuptools too).
RUN /opt/serin/bin/pip uninstall --yes setuptools pip

FROM ${BASE}
COPY --from=build /opt/serin /opt/serin
ENV PATH=/opt/serin/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["serin-controller"]
