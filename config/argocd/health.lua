-- Health of a VirtualNodePool for Argo CD. The kind follows kstatus: observedGeneration, Ready, and the abnormal-true
-- conditions Reconciling and Stalled. Ready=False alone is no error here: a pool that drains is Progressing.
-- Install as `resource.customizations.health.virtualnodes.dev_VirtualNodePool` in ConfigMap argocd-cm. Lua 5.1, and no
-- library is used, so useOpenLibs is not needed. Argo CD itself answers for objects that are being deleted.

local function verdict(status, message)
  return { status = status, message = message }
end

local function text(condition)
  return condition.reason .. ": " .. condition.message
end

local annotations = obj.metadata.annotations
if (obj.spec ~= nil and obj.spec.paused == true)
    or (annotations ~= nil and annotations["virtualnodes.dev/paused"] == "true") then
  return verdict("Suspended", "Paused")
end

local status = obj.status
if status == nil or status.conditions == nil then
  return verdict("Progressing", "The operator has not reported yet")
end
if status.observedGeneration ~= obj.metadata.generation then
  return verdict("Progressing", "The operator has not seen the newest spec yet")
end

local current = {}
for _, condition in ipairs(status.conditions) do
  if condition.observedGeneration == obj.metadata.generation then
    current[condition.type] = condition
  end
end

if current.Stalled ~= nil and current.Stalled.status == "True" then
  return verdict("Degraded", text(current.Stalled))
end
if current.Reconciling ~= nil and current.Reconciling.status == "True" then
  return verdict("Progressing", text(current.Reconciling))
end
if current.Ready == nil then
  return verdict("Progressing", "The operator has not reported yet")
end
if current.Ready.status == "True" then
  return verdict("Healthy", current.Ready.message)
end
return verdict("Progressing", text(current.Ready))
