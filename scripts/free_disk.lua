-- The disk is full (ENOSPC): removes the oldest files of the folders that the inventory gives free for it.
--
-- Inventory of the service:   disk: { folders: [/var/cache/shop, /var/tmp/shop], min_age_s: 3600, keep: 10, pattern: "%.tmp$" }
--
-- Files younger than min_age_s (default one hour) and the `keep` newest of each folder stay. `pattern` is a Lua pattern for names.
-- Removed files are gone for good: they are declared to be worth nothing. Hence irreversible, and only what is declared.

local function old_files(request, call)
  local disk = request.target.disk
  local now_us = os.time() * 1000000
  local min_age_us = (disk.min_age_s or 3600) * 1000000
  local found = {}
  for _, folder in ipairs(disk.folders) do
    local files = {}
    for _, file in ipairs(call.list_files(folder).files) do
      if file.type == "file" and (not disk.pattern or file.name:find(disk.pattern)) then files[#files + 1] = file end
    end
    table.sort(files, function(a, b) return a.modified_us < b.modified_us end)
    for i = 1, #files - (disk.keep or 0) do
      if now_us - files[i].modified_us >= min_age_us then
        found[#found + 1] = { path = folder .. "/" .. files[i].name, bytes = files[i].bytes, modified_us = files[i].modified_us }
      end
    end
  end
  table.sort(found, function(a, b) return a.modified_us < b.modified_us end)
  return found
end

return {
  name = "free_disk",
  version = "1.0.0",
  summary = "Removes old files from the folders declared for it when the disk is full",
  priority = 90,               -- nothing else works while the disk is full
  risk = "disruptive",
  idempotent = true,
  reversible = false,
  timeout_ms = 60000,
  matches = {
    { target = { "disk" }, message = "(?i)no space left on device|ENOSPC|disk (is )?full|disk quota exceeded" },
    { target = { "disk" }, error_type = "ENOSPC" },
  },
  capabilities = { "file:{target.disk.folders}/*", "read:{target.disk.folders}" },
  parameters = {
    type = "object", additionalProperties = false,
    properties = {
      free_bytes = { type = "integer", minimum = 1, default = 1073741824, unit = "bytes", description = "enough when this much was freed" },
      max_files = { type = "integer", minimum = 1, maximum = 1000, default = 500 },
    },
  },

  assess = function() return 0.9 end,

  execute = function(request, call)
    local wanted, most = request.config.free_bytes or 1073741824, request.config.max_files or 500
    local freed, removed = 0, 0
    local candidates = old_files(request, call)
    if #candidates == 0 then return { outcome = "declined", text = "no file is old enough to be removed" } end
    for i, file in ipairs(candidates) do
      if freed >= wanted or removed >= most or call.is_cancelled() then break end
      call.remove_file { path = file.path, backup = false }
      freed, removed = freed + file.bytes, removed + 1
      if i % 20 == 0 then call.progress(i / #candidates, removed .. " files removed") end
    end
    call.info("freed space", { bytes = freed, files = removed })
    call.state_put("freed", json.encode { bytes = freed, files = removed, attempt = request.attempt })
    return { outcome = "succeeded", text = ("removed %d files, %d bytes"):format(removed, freed), detail = { bytes = freed, files = removed } }
  end,

  verify = function(request, call)
    local freed = call.state_get("freed")
    if not freed.exists or json.decode(freed.value).bytes == 0 then return { outcome = "failed", text = "nothing was freed" } end
    -- The proof is a write that works: a small file in each folder, taken away again.
    for _, folder in ipairs(request.target.disk.folders) do
      local probe = folder .. "/.heald-probe"
      call.write_file { path = probe, content = ("x"):rep(4096) }
      call.remove_file { path = probe, backup = false }
    end
    return { outcome = "succeeded", text = "files can be written again" }
  end,
}
