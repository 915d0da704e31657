// The same in JavaScript: worker.js PORT LOG. Faults: crash, hang (busy), slow, leak.
const http = require('http'), fs = require('fs');
const [port, log] = process.argv.slice(2);
const note = (level, text) => fs.appendFileSync(log, `${new Date().toISOString()} ${level} ${text}\n`);
let slow = 0, leaked = false;
process.on('uncaughtException', e => { note('FATAL', `Uncaught ${e.stack}`); process.exit(1) });
http.createServer((q, r) => {
    if (q.method === 'POST') {
        r.end();
        const fault = q.url.split('/').pop();
        if (fault === 'crash') setTimeout(() => { null.length }, 1);
        if (fault === 'hang') setTimeout(() => { for (;;) ; }, 1);
        if (fault === 'slow') slow = 800;
        if (fault === 'leak') leaked = true;
        return;
    }
    setTimeout(() => {
        if (slow) note('ERROR', `slow request: ${slow} ms spent in garbage collection`);
        if (leaked) { note('ERROR', 'FATAL ERROR: Reached heap limit, Allocation failed - JavaScript heap out of memory'); r.statusCode = 503 }
        r.end(leaked ? 'broken\n' : 'ok\n');
    }, slow);
}).listen(+port, '127.0.0.1');
