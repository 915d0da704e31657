"""A scripted language model on loopback that speaks the protocols of the providers: OpenAI chat completions and responses, GitHub Models,
Anthropic messages, Ollama. Tests say what it answers and see every request that arrived. Standard library only.

    with ModelServer() as server:                      # a good analysis for every question, no edits
    with ModelServer(lambda q: "text") as server:      # q.system, q.text, q.wants_json, q.body, q.turns, q.path, q.headers
    server.queue("not json", Reply(status=429, headers={"retry-after-ms": "10"}))   # goes before the callback

A callback returns a text, an object (sent as JSON text), a Reply, or None for the default.
"""
import dataclasses
import http.server
import json
import threading
import typing


def analysis(files=(), title="Use a default", cause="The key may be absent", kind="logic_bug", suggestions=1, **more):
    """An answer that fits the form of docs/adr/0041."""
    one = {"fix_title": title, "fix_description": "Give absent keys a default", "fix_approach": "Replace [] by get()", "files_affected": list(files),
           "confidence_score": 0.8, "reasoning": "The trace ends there", "breaking_changes": [], "potential_side_effects": [], "test_cases": ["absent key"]}
    return {"root_cause": cause, "root_cause_hypothesis": "The caller leaves it out", "bug_classification": kind, "estimated_impact": "Orders fail",
            "fix_suggestions": [dict(one, fix_title=title if i == 0 else f"{title} {i + 1}") for i in range(suggestions)],
            "prevention_tips": ["Validate input"], **more}


@dataclasses.dataclass
class Reply:
    text: typing.Any = ""
    status: int = 200
    headers: dict = dataclasses.field(default_factory=dict)
    finish: str = "stop"  # stop, length or refused
    input_tokens: int = 100
    output_tokens: int = 50
    raw: typing.Optional[str] = None  # the whole body instead


class Question:
    def __init__(self, path, headers, raw):
        self.path, self.headers, self.raw = path, {k.lower(): v for k, v in headers.items()}, raw
        self.body = json.loads(raw)
        b = self.body
        self.dialect = ("anthropic" if path.endswith("/v1/messages") else "openai_responses" if path.endswith("/responses") else
                        "ollama" if path.endswith("/api/chat") else "github" if "/inference/" in path else "openai")
        turns = b.get("messages", b.get("input", []))
        self.turns = [{"role": "user", "content": turns}] if isinstance(turns, str) else list(turns)
        self.system = b.get("system") or b.get("instructions") or next((t["content"] for t in self.turns if t["role"] == "system"), "")
        self.turns = [t for t in self.turns if t["role"] != "system"]
        self.text = self.turns[0]["content"] if self.turns else ""
        self.wants_json = bool(b.get("response_format") or b.get("format") or b.get("output_config") or b.get("text"))
        self.schema = (b.get("response_format", {}).get("json_schema", {}).get("schema") or b.get("format") or
                       b.get("output_config", {}).get("format", {}).get("schema") or b.get("text", {}).get("format", {}).get("schema"))
        self.all_text = self.system + "\n" + "\n".join(str(t["content"]) for t in self.turns)


def body_of(question, reply, number):
    text = reply.text if isinstance(reply.text, str) else json.dumps(reply.text)
    n, m = reply.input_tokens, reply.output_tokens
    if question.dialect == "anthropic":
        stop = {"stop": "end_turn", "length": "max_tokens", "refused": "refusal"}[reply.finish]
        return {"id": f"msg_{number}", "type": "message", "role": "assistant", "content": [{"type": "text", "text": text}], "stop_reason": stop,
                "usage": {"input_tokens": n, "output_tokens": m, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}}
    if question.dialect == "openai_responses":
        part = {"type": "refusal", "refusal": text} if reply.finish == "refused" else {"type": "output_text", "text": text, "annotations": []}
        return {"id": f"resp_{number}", "object": "response", "status": "incomplete" if reply.finish == "length" else "completed",
                "incomplete_details": {"reason": "max_output_tokens"} if reply.finish == "length" else None,
                "output": [{"type": "message", "role": "assistant", "content": [part]}],
                "usage": {"input_tokens": n, "output_tokens": m, "total_tokens": n + m, "input_tokens_details": {"cached_tokens": 0},
                          "output_tokens_details": {"reasoning_tokens": 0}}}
    if question.dialect == "ollama":
        return {"model": question.body["model"], "message": {"role": "assistant", "content": text}, "done": True,
                "done_reason": "length" if reply.finish == "length" else "stop", "prompt_eval_count": n, "eval_count": m}
    message = {"role": "assistant", "content": None if reply.finish == "refused" else text, "refusal": text if reply.finish == "refused" else None}
    return {"id": f"chatcmpl-{number}", "object": "chat.completion", "model": question.body["model"],
            "choices": [{"index": 0, "finish_reason": "length" if reply.finish == "length" else "stop", "message": message}],
            "usage": {"prompt_tokens": n, "completion_tokens": m, "total_tokens": n + m, "prompt_tokens_details": {"cached_tokens": 0},
                      "completion_tokens_details": {"reasoning_tokens": 0}}}


class ModelServer:
    def __init__(self, answer=None):
        self.answer, self.questions, self._queue = answer or (lambda q: None), [], []
        self._lock = threading.Lock()
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode("utf-8")
                try:
                    question = Question(self.path, self.headers, raw)
                    reply = owner._reply(question)
                    content = reply.raw if reply.raw is not None else json.dumps(
                        body_of(question, reply, len(owner.questions)) if reply.status < 300 else {"error": {"message": str(reply.text) or "scripted"}})
                except Exception as error:  # a test must see what broke
                    owner.errors.append(error)
                    reply, content = Reply(status=400), json.dumps({"error": {"message": repr(error)}})
                data = content.encode()
                try:
                    self.send_response(reply.status)
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass  # who asked is gone

            def log_message(self, *args):
                pass

        self.errors = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _reply(self, question):
        with self._lock:
            self.questions.append(question)
            reply = self._queue.pop(0) if self._queue else None
        if reply is None:
            reply = self.answer(question)
        if reply is None:
            reply = analysis() if question.wants_json else "NO EDITS"
        return reply if isinstance(reply, Reply) else Reply(reply)

    def queue(self, *replies):
        with self._lock:
            self._queue.extend(replies)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def provider(self, dialect="openai", name="model", **more):
        """Its entry in the configuration of heald."""
        base = self.url + ("/v1" if dialect in ("openai", "openai_responses") else "")
        return {"name": name, "dialect": dialect, "base_url": base, "model": "test-model", "key": "provider-key-of-the-test", "timeout": "20s", **more}

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()
