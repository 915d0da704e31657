-- A lock file whose owner is dead keeps a service from working: takes the one that the inventory names out of the way.
return {
  name = "stale_lock", version = "1.0.0", summary = "Moves a lock file away whose owner is dead", priority = 85, risk = "safe",
  idempotent = true, reversible = true, timeout_ms = 5000,
  matches = { { target = { "lock_file" }, message = "(?i)lock file" } },
  capabilities = { "file:{target.lock_file}", "file:{target.lock_file}.stale", "read:{target.lock_file}" },
  assess = function() return 0.8 end,
  execute = function(request, call)
    local path = request.target.lock_file
    local lock = call.read_file { path = path, missing_ok = true }
    if not lock.exists then return { outcome = "declined", text = "there is no lock file" } end
    local owner = tonumber(lock.content:match("%d+"))
    if owner and call.process_info { pid = owner }.alive then return { outcome = "declined", text = "its owner lives" } end
    call.move_file { from = path, to = path .. ".stale" }
    return { outcome = "succeeded", text = "the lock of dead process " .. tostring(owner) .. " is gone" }
  end,
}
