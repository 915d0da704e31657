"""Asks /health twenty times a second until its input ends, then prints how long each answer took, in ms: a process of its own, so that nothing
else in the suite keeps it waiting.  health_watch.py PORT"""
import http.client
import json
import select
import sys
import time

took = []
while not select.select([sys.stdin], [], [], 0.05)[0]:
    begin = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=30)
    connection.request("GET", "/health")
    if connection.getresponse().status == 200:
        took.append((time.monotonic() - begin) * 1000)
    connection.close()
print(json.dumps(took))
