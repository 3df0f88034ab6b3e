-- Health of serin.dev/Canary for Argo CD: resource.customizations.health.serin.dev_Canary in ConfigMap argocd-cm.
-- A wait for a person is Suspended, so that it does not look like a rollout that is stuck.
local status = obj.status
if status == nil or status.conditions == nil then
  return {status = "Progressing", message = "Serin has not looked at this Canary yet"}
end
if (status.observedGeneration or 0) < (obj.metadata.generation or 0) then
  return {status = "Progressing", message = "Serin has not seen this generation yet"}
end

local found = {}
for _, condition in ipairs(status.conditions) do
  found[condition.type] = condition
end

local function is(kind, value)
  return found[kind] ~= nil and found[kind].status == value
end

local function told(kind)
  local reason, message = found[kind].reason or "", found[kind].message or ""
  if message == "" then
    return reason
  end
  return reason .. ": " .. message
end

for _, kind in ipairs({"Stalled", "RolledBack"}) do
  if is(kind, "True") then
    return {status = "Degraded", message = told(kind)}
  end
end
if is("Accepted", "False") then
  return {status = "Degraded", message = told("Accepted")}
end
for _, kind in ipairs({"AwaitingApproval", "Paused", "Frozen"}) do
  if is(kind, "True") then
    return {status = "Suspended", message = told(kind)}
  end
end
if is("Ready", "True") then
  return {status = "Healthy", message = told("Ready")}
end
return {status = "Progressing", message = found["Ready"] and told("Ready") or ""}
