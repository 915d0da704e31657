-- A worker dies on one specific input file of its spool. This takes that file out of the way, into a quarantine folder from which it can
-- be brought back (the move is undone when the attempt fails), and starts the worker again.
--
-- Inventory of the service:   spool:   { folder: /srv/import/spool, quarantine: /srv/import/quarantine }
--                             process: { pid_file: /run/import.pid, command: [/usr/bin/import, --daemon] }
--
-- The error's text only chooses among the files that lie in the spool: a name that is not there is never touched.

local function named_file(request, call)
  local incident = request.incident
  local text = (incident.message or "") .. "\n" .. (incident.stack_trace or "")
  local best
  for _, file in ipairs(call.list_files(request.target.spool.folder).files) do
    -- The longest name that the error speaks of, so that "order-1" is not taken for "order-17".
    if file.type == "file" and text:find(file.name, 1, true) and (not best or #file.name > #best) then best = file.name end
  end
  return best
end

return {
  name = "quarantine_poison",
  version = "1.0.0",
  summary = "Moves the input file a worker dies on into quarantine and starts the worker again",
  priority = 80,               -- before restart: with the file still there the worker would die again
  risk = "disruptive",
  idempotent = true,
  reversible = true,
  timeout_ms = 20000,
  matches = {
    { target = { "spool", "process" }, level = "error" },
  },
  capabilities = {
    "file:{target.spool.folder}/*", "file:{target.spool.quarantine}/*", "read:{target.spool.folder}",
    "signal:pidfile:{target.process.pid_file}", "file:{target.process.pid_file}", "file:{target.process.log_file}",
    "exec:{target.process.command.0}",
  },
  parameters = {
    type = "object", additionalProperties = false,
    properties = { settle_ms = { type = "integer", minimum = 0, maximum = 60000, default = 300, unit = "ms" } },
  },

  -- Asked before anything is done, without effects: only text.
  assess = function(request)
    local text = (request.incident.message or "") .. (request.incident.stack_trace or "")
    return text:find(request.target.spool.folder, 1, true) and 0.9 or 0.3
  end,

  execute = function(request, call)
    local spool, process = request.target.spool, request.target.process
    local file = named_file(request, call)
    if not file then return { outcome = "declined", text = "the error names no file that lies in " .. spool.folder } end

    call.progress(0.1, "quarantining " .. file)
    call.move_file { from = spool.folder .. "/" .. file, to = spool.quarantine .. "/" .. file }
    call.state_put("last", json.encode { file = file, attempt = request.attempt })

    local before = call.process_info { pid_file = process.pid_file }
    if before.alive then
      call.signal { pid_file = process.pid_file, start_time = before.start_time, signal = "TERM", kill_after_ms = 3000 }
    end
    call.progress(0.6, "starting the worker")
    local started = call.start_process {
      argv = process.command, pid_file = process.pid_file, log_file = process.log_file, cwd = process.cwd, env = process.env, keep = true,
    }
    if request.dry_run then return { outcome = "succeeded", text = "would quarantine " .. file .. " and start the worker" } end
    call.sleep(request.config.settle_ms or 300)
    local now = call.process_info { pid = started.pid }
    if not now.alive or now.start_time ~= started.start_time then
      call.warn("the worker died again", { pid = started.pid })
      return { outcome = "failed", text = "the worker died again without " .. file }
    end
    return { outcome = "succeeded", text = file .. " is in quarantine, the worker runs as process " .. now.pid, detail = { file = file, pid = now.pid } }
  end,

  verify = function(request, call)
    local last = call.state_get("last")
    if not last.exists then return { outcome = "failed", text = "nothing was quarantined" } end
    local file = json.decode(last.value).file
    for _, one in ipairs(call.list_files(request.target.spool.folder).files) do
      if one.name == file then return { outcome = "failed", text = file .. " is back in the spool" } end
    end
    local now = call.process_info { pid_file = request.target.process.pid_file }
    if not now.alive or now.state == "T" then return { outcome = "failed", text = "the worker is not running" } end
    return { outcome = "succeeded", text = "the worker lives without " .. file }
  end,
}
