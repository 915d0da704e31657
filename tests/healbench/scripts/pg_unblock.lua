-- A session that holds row locks and does nothing blocks all others: ends those that idle in a transaction for more than a second.
return {
  name = "pg_unblock", version = "1.0.0", summary = "Ends PostgreSQL sessions that idle in a transaction and block others", priority = 80, risk = "safe",
  idempotent = true, timeout_ms = 5000,
  matches = { { target = { "pg" }, message = "(?i)statement timeout|lock timeout|deadlock" } },
  capabilities = { "exec:/usr/bin/psql" },
  execute = function(request, call)
    local done = call.exec { argv = { "/usr/bin/psql", "-h", "127.0.0.1", "-p", tostring(request.target.pg.port), "-U", "postgres", "-XAtqc",
      "select count(pg_terminate_backend(pid)) from pg_stat_activity where state = 'idle in transaction' and state_change < now() - interval '300 ms'" } }
    if not done.ok then return { outcome = "failed", text = done.error_output } end
    return { outcome = "succeeded", text = done.output:gsub("%s", "") .. " sessions ended" }
  end,
}
