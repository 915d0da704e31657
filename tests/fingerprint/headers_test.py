#!/usr/bin/env python3
"""Layouts of headers put before messages of the development sets: no layout may split a pattern, and hardly any may join two.

Data as in quality_test.py; exit code 77 (skipped) without it.
"""
import argparse
import collections
import csv
import glob
import os
import pathlib
import random
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
MOST_JOINED = 3  # of some 300 patterns; measured: 3
r = random.Random(3)
lv = ["INFO", "WARN", "ERROR", "DEBUG"]


def n(a, b):
    return r.randrange(a, b)


def t():
    return "%02d:%02d:%02d" % (n(0, 24), n(0, 60), n(0, 60))


# Helpers of the layouts below: dates, levels and names as programs write them.
def pick(*words):
    return r.choice(words)


def day():
    return "2024-%02d-%02d" % (n(1, 13), n(10, 29))


def month():
    return pick("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def weekday():
    return pick("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def level():
    return pick("INFO", "WARN", "ERROR", "DEBUG")


def low():
    return pick("info", "warning", "error", "debug")


def ms():
    return "%03d" % n(0, 1000)


def us():
    return "%06d" % n(0, 10 ** 6)


def cls():
    return pick("org.acme.shop.OrderService", "io.foo.impl.Worker", "com.bar.db.JdbcStore")


def abbr():
    return pick("o.a.s.OrderService", "i.f.i.Worker", "c.b.d.JdbcStore")


def thread():
    return pick("main", "pool-%d-thread-%d" % (n(1, 9), n(1, 9)), "Thread-%d" % n(1, 99), "qtp%d-%d" % (n(1, 10 ** 9), n(1, 99)))


LAYOUTS = {
    'syslog': lambda: f"Nov {n(1,28):2d} {t()} web{n(1,9)} nginx[{n(1,9999)}]: ",
    'syslog_nopid': lambda: f"Nov {n(1,28):2d} {t()} web{n(1,9)} dbus: ",
    'rfc5424': lambda: f"<{n(1,190)}>1 2024-03-{n(10,28)}T{t()}.123Z host{n(1,9)} app {n(1,9999)} ID47 - ",
    'pri3164': lambda: f"<{n(1,190)}>Mar {n(1,28):2d} {t()} host{n(1,9)} app[{n(1,99)}]: ",
    'iso_host': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100000,999999)}+01:00 host{n(1,9)} systemd[1]: ",
    'log4j': lambda: f"2024-03-{n(10,28)} {t()},{n(100,999)} {r.choice(lv)} [pool-{n(1,9)}-thread-{n(1,9)}] com.acme.app.Worker: ",
    'log4j2': lambda: f"2024-03-{n(10,28)} {t()},{n(100,999)} [pool-{n(1,9)}-thread-{n(1,9)}] {r.choice(lv)}  com.acme.app.Worker - ",
    'logback': lambda: f"{t()}.{n(100,999)} [http-nio-{n(1,9)}] {r.choice(lv):5s} c.a.app.Worker - ",
    'spring': lambda: f"2024-03-{n(10,28)} {t()}.{n(100,999)}  {r.choice(lv):5s} {n(1,9999)} --- [nio-8080-exec-{n(1,9)}] c.a.app.Worker                   : ",
    'spark': lambda: f"24/03/{n(10,28)} {t()} {r.choice(lv)} storage.Mgr: ",
    'python': lambda: f"2024-03-{n(10,28)} {t()},{n(100,999)} - app.worker - {r.choice(lv)} - ",
    'python2': lambda: f"{r.choice(['INFO','ERROR'])}:app.worker:",
    'apache': lambda: f"[Sun Mar {n(10,28)} {t()} 2024] [error] ",
    'apache24': lambda: f"[Sun Mar {n(10,28)} {t()}.{n(100000,999999)} 2024] [core:error] [pid {n(1,999)}:tid {n(1,99999)}] [client 10.0.0.{n(1,99)}:{n(1,9999)}] ",
    'nginx': lambda: f"2024/03/{n(10,28)} {t()} [error] {n(1,99)}#{n(1,9)}: *{n(1,999)} ",
    'postgres': lambda: f"2024-03-{n(10,28)} {t()}.{n(100,999)} UTC [{n(1,9999)}] LOG:  ",
    'postgres2': lambda: f"2024-03-{n(10,28)} {t()}.{n(100,999)} UTC [{n(1,9999)}] bob@shop ERROR:  ",
    'mysql': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100000,999999)}Z {n(1,99)} [Warning] [MY-01{n(1000,9999)}] [Server] ",
    'redis': lambda: f"{n(1,999)}:M {n(10,28)} Mar 2024 {t()}.{n(100,999)} * ",
    'mongo': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100,999)}+0000 I NETWORK  [conn{n(1,99)}] ",
    'glog': lambda: f"I0{n(1,9)}{n(10,28)} {t()}.{n(100000,999999)} {n(1,9999):5d} main.cc:{n(1,99)}] ",
    'logcat': lambda: f"03-{n(10,28)} {t()}.{n(100,999)}  {n(1000,9999)}  {n(1000,9999)} I ActivityThing: ",
    'brief': lambda: f"I/ActivityThing({n(1000,9999):5d}): ",
    'dmesg': lambda: f"[{n(0,9999):5d}.{n(100000,999999)}] ",
    'rails': lambda: f"I, [2024-03-{n(10,28)}T{t()}.{n(100000,999999)} #{n(1,9999)}]  INFO -- : ",
    'zap': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100,999)}Z\tINFO\tserver\tapp/main.go:{n(1,99)}\t",
    'bracket': lambda: f"[2024-03-{n(10,28)} {t()}] [{r.choice(lv).lower()}] [main] ",
    'pipe': lambda: f"20240{n(301,331)}-{t()}:{n(100,999)}|App_Step|{n(1000,9999)}|",
    'pipe2': lambda: f"2024-03-{n(10,28)} {t()} | {r.choice(lv)} | app.main | ",
    'epoch': lambda: f"17{n(10000000,99999999)}.{n(100,999)} {r.choice(lv)} ",
    'level_first': lambda: f"{r.choice(lv)} 2024-03-{n(10,28)} {t()} app.main ",
    'level_first2': lambda: f"{r.choice(lv)}  [2024-03-{n(10,28)} {t()},{n(100,999)}] com.acme.app.Worker: ",
    'level_only': lambda: f"[{r.choice(lv)}] ",
    'cassandra': lambda: f"{r.choice(lv)}  [ScheduledTasks:{n(1,9)}] 2024-03-{n(10,28)} {t()},{n(100,999)} StatusLogger.java:{n(10,99)} - ",
    'elastic': lambda: f"[2024-03-{n(10,28)}T{t()},{n(100,999)}][INFO ][o.e.n.Node               ] [node-{n(1,9)}] ",
    'kafka': lambda: f"[2024-03-{n(10,28)} {t()},{n(100,999)}] INFO ",
    'k8s': lambda: f"2024-03-{n(10,28)}T{t()}.{n(100000000,999999999)}Z stdout F ",
    'erlang': lambda: f"2024-03-{n(10,28)} {t()}.{n(100000,999999)}+00:00 [info] <0.{n(100,999)}.0> ",
    'timeonly': lambda: f"{t()} {r.choice(lv)} ",
    'serilog': lambda: f"2024-03-{n(10,28)} {t()}.{n(100,999)} +00:00 [INF] ",
    'win': lambda: f"2024-03-{n(10,28)} {t()}, Error                 DISM   ",
    'us': lambda: f"0{n(1,9)}/{n(10,28)}/2024 {t()} PM {r.choice(lv)} ",
    'pipe_short': lambda: f"20240{n(301,331)}-{n(0,10)}:{n(0,10)}:{n(0,10)}:{n(10,99)}|App_Step|{n(1000,9999)}|",
    'ras': lambda: f"- 11{n(10000000,99999999)} 2005.06.{n(10,28)} R{n(10,99)}-M1-N0 2005-06-{n(10,28)}-15.42.50.{n(100000,999999)} R{n(10,99)}-M1-N0 RAS KERNEL {r.choice(['INFO','FATAL'])} ",
    'compact': lambda: f"0811{n(10,28)} {n(100000,235959)} {n(1,999)} {r.choice(lv)} dfs.Node$Responder: ",
    'celery': lambda: f"[2024-03-{n(10,28)} {t()},{n(100,999)}: {r.choice(lv)}/MainProcess] ",
    'serilog_short': lambda: f"[{t()} {r.choice(['INF','WRN','ERR'])}] ",
    'compose': lambda: f"{t()} web.{n(1,9)} | ",
    'tomcat': lambda: f"{n(10,29)}-{month()}-2024 {t()}.{ms()} {pick('INFO','WARNING','SEVERE')} [{thread()}] org.apache.catalina.startup.{pick('Catalina.start','HostConfig.deployDirectory')} ",
    'wildfly': lambda: f"{t()},{ms()} {level():5s} [{cls()}] ({pick('MSC service thread 1-%d'%n(1,9),'ServerService Thread Pool -- %d'%n(1,99),'default task-%d'%n(1,9))}) ",
    'jenkins': lambda: f"{day()} {t()}.{ms()}+0000 [id={n(1,99)}]\t{pick('INFO','WARNING')}\thudson.{pick('WebAppMain$3#run','model.AsyncPeriodicWork#doRun')}: ",
    'sidekiq': lambda: f"{day()}T{t()}.{ms()}Z pid={n(1,9999)} tid=g{n(1,9)}x class={pick('HardJob','MailJob')} jid={n(1,10**9):x} {level()}: ",
    'envoy': lambda: f"[{day()} {t()}.{ms()}][{n(1,99)}][{low()}][{pick('main','upstream')}] [source/server/server.cc:{n(1,999)}] ",
    'hclog': lambda: f"{day()}T{t()}.{ms()}Z [{level()}]  agent.{pick('server','client')}: ",
    'hclog2': lambda: f"    {day()}T{t()}.{ms()}+0200 [{level()}]  {pick('client','worker')}.alloc_runner: ",
    'cockroach': lambda: f"{pick(*'IWE')}2404{n(10,29)} {t()}.{us()} {n(1,999)} server/node.go:{n(1,999)}  [n{n(1,9)}] ",
    'mariadb': lambda: f"{day()} {t()} {n(0,99)} [{pick('Note','Warning','ERROR')}] ",
    'mssql': lambda: f"{day()} {t()}.{n(10,99)} spid{n(1,99)}{pick('','s')}     ",
    'squid': lambda: f"{day().replace('-','/')} {t()} kid{n(1,4)}| ",
    'nagios': lambda: f"[17{n(10000000,99999999)}] ",
    'gluster': lambda: f"[{day()} {t()}.{us()} +0000] {pick(*'IWE')} [MSGID: {n(100000,199999)}] [glusterfsd.c:{n(1,999)}:main] 0-glusterfs: ",
    'gluster2': lambda: f"[{day()} {t()}.{us()}] {pick(*'IWE')} [socket.c:{n(1,999)}:socket_event] 0-vol-client-{n(0,9)}: ",
    'ceph': lambda: f"{day()}T{t()}.{ms()}+0000 7f{n(16**6,16**7):x}0700 {n(-1,10):2d} ",
    'libvirt': lambda: f"{day()} {t()}.{ms()}+0000: {n(1,9999)}: {pick('error','info','warning')} : virNetSocketReadWire:{n(1,1999)} : ",
    'chromium': lambda: f"[{n(1,9999)}:{n(1,9999)}:04{n(10,29)}/{n(100000,235959)}.{us()}:{pick('ERROR','WARNING','INFO')}:gpu_init.cc({n(1,999)})] ",
    'gunicorn': lambda: f"[{day()} {t()} +0000] [{n(1,9999)}] [{level()}] ",
    'django': lambda: f"[{n(10,29)}/{month()}/2024 {t()}] {level()} [app.views:{n(1,99)}] ",
    'winston': lambda: f"{day()}T{t()}.{ms()}Z {pick('info','warn','error')}: ",
    'winston2': lambda: f"{day()}T{t()}.{ms()}Z [{pick('info','warn','error')}] ",
    'pm2': lambda: f"{n(0,9)}|app  | {day()} {t()}: ",
    'nlog': lambda: f"{day()} {t()}.{n(1000,9999)}|{pick('INFO','WARN')}|Acme.Shop.{pick('Orders','Cart')}|",
    'log4net': lambda: f"{day()} {t()},{ms()} [{n(1,30)}] {level():5s} Acme.Shop.{pick('Orders','Cart')} [(null)] - ",
    'esxi': lambda: f"{day()}T{t()}.{ms()}Z {low()} hostd[{n(1,9999999)}] [Originator@6876 sub={pick('Vimsvc.ha-eventmgr','Hostsvc')} opID={n(1,9999)}] ",
    'esxi2': lambda: f"{day()}T{t()}.{ms()}Z cpu{n(0,63)}:{n(1,9999999)})",
    'ios': lambda: f"*{month()} {n(1,29):2d} {t()}.{ms()}: ",
    'ios2': lambda: f"{month()} {n(1,29):2d} {t()} rtr{n(1,9)} {n(1,9999)}: {month()} {n(1,29):2d} {t()}.{ms()} EDT: ",
    'splunk': lambda: f"04-{n(10,29)}-2024 {t()}.{ms()} +0000 {level():5s} {pick('TailReader','WatchedFile')} [{n(1,9999)} tailreader{n(0,9)}] - ",
    'zabbix': lambda: f"{n(1,9999):6d}:202404{n(10,29)}:{n(100000,235959)}.{ms()} ",
    'openvpn': lambda: f"{weekday()} {month()} {n(1,29):2d} {t()} 2024 ",
    'openvpn2': lambda: f"{weekday()} {month()} {n(1,29):2d} {t()} 2024 us={us()} ",
    'clickhouse': lambda: f"2024.04.{n(10,29)} {t()}.{us()} [ {n(1,9999)} ] {{{pick('','%08x-1111-2222-3333-%012x'%(n(0,16**8),n(0,16**12)))}}} <{pick('Information','Debug','Error')}> Application: ",
    'scylla': lambda: f"{level():5s} {day()} {t()},{ms()} [shard {n(0,9)}] storage_service - ",
    'aerospike': lambda: f"{month()} {n(10,29)} 2024 {t()} GMT: {pick('INFO','WARNING')} (drv_ssd): (drv_ssd.c:{n(1,9999)}) ",
    'neo4j': lambda: f"{day()} {t()}.{ms()}+0000 {level():5s} [{abbr()}] ",
    'fpm': lambda: f"[{n(10,29)}-{month()}-2024 {t()}] {pick('NOTICE','WARNING')}: ",
    'php': lambda: f"[{n(10,29)}-{month()}-2024 {t()} UTC] ",
    'php2': lambda: f"[{n(10,29)}-{month()}-2024 {t()} Europe/Berlin] ",
    'mosquitto': lambda: f"17{n(10000000,99999999)}: ",
    'freeswitch': lambda: f"{day()} {t()}.{us()} [{pick('NOTICE','ERR','DEBUG')}] switch_channel.c:{n(1,9999)} ",
    'asterisk': lambda: f"[{day()} {t()}] {pick('VERBOSE','NOTICE','WARNING')}[{n(1,9999)}][C-{n(0,16**8):08x}] pbx.c: ",
    'asterisk2': lambda: f"[{month()} {n(1,29):2d} {t()}] {pick('VERBOSE','NOTICE','WARNING')}[{n(1,9999)}] chan_sip.c: ",
    'pbs': lambda: f"04/{n(10,29)}/2024 {t()};0008;Server@host{n(1,9)};Job;{n(1,999)}.host;",
    'sge': lambda: f"04/{n(10,29)}/2024 {t()}|{pick('  main','worker')}|host{n(1,9)}|{pick(*'IWE')}|",
    'condor': lambda: f"04/{n(10,29)}/24 {t()} ",
    'condor2': lambda: f"04/{n(10,29)}/24 {t()}.{ms()} (pid:{n(1,9999)}) ",
    'jetty': lambda: f"{day()} {t()}.{ms()}:{level()}:oejs.{pick('Server','AbstractConnector')}:{thread()}: ",
    'solr': lambda: f"{day()} {t()}.{ms()} {level():5s} ({thread()}) [   x:core{n(1,9)}] {abbr()} ",
    'solr2': lambda: f"{day()} {t()}.{ms()} {level():5s} ({thread()}) [ ] {abbr()} ",
    'logstash': lambda: f"[{day()}T{t()},{ms()}][{level():5s}][logstash.agent           ] ",
    'logstash2': lambda: f"[{day()}T{t()},{ms()}][{level():5s}][logstash.outputs.file    ][main][{n(0,16**8):08x}] ",
    'spring3': lambda: f"{day()}T{t()}.{ms()}+02:00  {level():5s} {n(1,9999)} --- [shop] [{thread():>15s}] {abbr():40s} : ",
    'spring2t': lambda: f"{day()} {t()}.{ms()} {level():5s} [shop,{n(0,16**8):08x}{n(0,16**8):08x},{n(0,16**8):08x}{n(0,16**8):08x}] {n(1,9999)} --- [{thread():>15s}] {abbr():40s} : ",
    'play': lambda: f"{day()} {t()},{ms()} [{low()}] play.api.{pick('Play','http.Server')} - ",
    'akka': lambda: f"[{level()}] [04/{n(10,29)}/2024 {t()}.{ms()}] [sys-akka.actor.default-dispatcher-{n(1,9)}] [akka://sys/user/a{n(1,9)}] ",
    'akka2': lambda: f"[{day()} {t()},{ms()}] [{level()}] [akka.event.slf4j.Slf4jLogger] [sys-akka.actor.default-dispatcher-{n(1,9)}] [] - ",
    'loguru': lambda: f"{day()} {t()}.{ms()} | {level():8s} | app.{pick('main','db')}:run:{n(1,99)} - ",
    'tracing': lambda: f"{day()}T{t()}.{us()}Z  {level():>5s} {pick('hyper::server','app','app::db::pool')}: ",
    'tracing2': lambda: f"{day()}T{t()}.{us()}Z {level():>5s} request{{method=GET id={n(1,99)}}}: app::db: ",
    'envlogger': lambda: f"[{day()}T{t()}Z {level():5s} {pick('app','app::db')}] ",
    'elixir': lambda: f"{t()}.{ms()} [{pick('info','error','warning')}] ",
    'elixir2': lambda: f"{t()}.{ms()} request_id=F{n(1,10**9)} [{pick('info','error')}] ",
    'boostlog': lambda: f"[{day()} {t()}.{us()}] [0x{n(0,16**8):016x}] [{low()}]    ",
    'spdlog': lambda: f"[{day()} {t()}.{ms()}] [{pick('net','db')}] [{pick('info','warning','error')}] ",
    'spdlog2': lambda: f"[{day()} {t()}.{ms()}] [{pick('info','warning','error')}] [main.cpp:{n(1,99)}] ",
    'plog': lambda: f"{day()} {t()}.{ms()} {level():5s} [{n(1,9999)}] [Pool::run@{n(1,99)}] ",
    'g3log': lambda: f"{day().replace('-','/')} {t()} {us()} {pick('INFO','WARNING')} [main.cpp:{n(1,99)}] ",
    'ros': lambda: f"[ {pick('INFO','WARN')}] [17{n(10000000,99999999)}.{n(0,10**9):09d}]: ",
    'ros2': lambda: f"[{pick('INFO','WARN')}] [17{n(10000000,99999999)}.{n(0,10**9):09d}] [node_{n(1,9)}]: ",
    'minecraft': lambda: f"[{t()}] [{pick('Server thread','Worker-Main-%d'%n(1,9))}/{level()}]: ",
    'tensorflow': lambda: f"{day()} {t()}.{us()}: {pick(*'IWE')} tensorflow/core/platform/cpu.cc:{n(1,999)}] ",
    'klog': lambda: f"{pick(*'IWE')}04{n(10,29)} {t()}.{us()} {n(1,99):7d} controller.go:{n(1,999)}] ",
    'tidb': lambda: f"[{day().replace('-','/')} {t()}.{ms()} +00:00] [{level()}] [server.go:{n(1,999)}] ",
    'hbase': lambda: f"{day()} {t()},{ms()} {level():5s} [RS_OPEN_REGION-host{n(1,9)},16020,{n(1,10**9)}-{n(0,3)}] {pick('regionserver.HRegion','zookeeper.Watcher')}: ",
    'glassfish': lambda: f"[{day()}T{t()}.{ms()}+0000] [Payara 5.2] [{pick('INFO','SEVERE')}] [] [{cls()}] [tid: _ThreadID={n(1,99)} _ThreadName=main] ",
    'pylog_th': lambda: f"{day()} {t()},{ms()} [{thread()}] {level()} app.worker: ",
    'pylog_fn': lambda: f"{day()} {t()},{ms()} {level()} app.py:{n(1,99)} run() ",
    'pylog_line': lambda: f"{day()} {t()},{ms()} - {level()} - app.py:{n(1,99)} - ",
    'pylog_pid': lambda: f"{day()} {t()},{ms()} {level()} {n(1,9999)} app.worker ",
    'pylog_proc': lambda: f"{level()} {day()} {t()},{ms()} worker {n(1,9999)} {n(10**9,10**10)} ",
    'uvicorn': lambda: f"{pick('INFO','WARNING','ERROR')}:     ",
    'golog': lambda: f"{day().replace('-','/')} {t()} ",
    'golog_us': lambda: f"{day().replace('-','/')} {t()}.{us()} main.go:{n(1,99)}: ",
    'golevel': lambda: f"{day().replace('-','/')} {t()} {level()}: ",
    'nats': lambda: f"[{n(1,9999)}] {day().replace('-','/')} {t()}.{us()} [{pick('INF','ERR','WRN','DBG')}] ",
    'zerolog': lambda: f"{day()}T{t()}Z {pick('INF','ERR','WRN','DBG')} ",
    'zerolog2': lambda: f"{n(1,12)}:{n(10,59)}PM {pick('INF','ERR')} ",
    'geth': lambda: f"{level():5s}[04-{n(10,29)}|{t()}.{ms()}] ",
    'lnd': lambda: f"{day()} {t()}.{ms()} [{pick('INF','ERR')}] {pick('LTND','PEER')}: ",
    'upstart': lambda: f"{day()}T{t()}.{us()}+02:00 host{n(1,9)} app[{n(1,999)}]: ",
    'isonopid': lambda: f"{day()}T{t()}+02:00 host{n(1,9)} app: ",
    'syslogyear': lambda: f"{month()} {n(1,29):2d} 2024 {t()} host{n(1,9)} app[{n(1,999)}]: ",
    'syslogpaths': lambda: f"{month()} {n(1,29):2d} {t()} host{n(1,9)} /usr/sbin/app[{n(1,999)}]: ",
    'syslogsub': lambda: f"{month()} {n(1,29):2d} {t()} host{n(1,9)} app(sub)[{n(1,999)}]: ",
    'solaris': lambda: f"{month()} {n(1,29):2d} {t()} host{n(1,9)} app[{n(1,999)}]: [ID {n(100000,999999)} daemon.notice] ",
    'aix': lambda: f"{month()} {n(1,29):2d} {t()} host{n(1,9)} daemon:info app[{n(1,999)}]: ",
    'bsd': lambda: f"{month()} {n(1,29):2d} {t()} <daemon.info> host{n(1,9)} app[{n(1,999)}]: ",
    'journal_kern': lambda: f"{month()} {n(1,29):2d} {t()} host{n(1,9)} kernel: [{n(1,99999):5d}.{us()}] ",
    'dmesgT': lambda: f"[{weekday()} {month()} {n(1,29):2d} {t()} 2024] ",
    'docker_compose': lambda: f"web-{n(1,9)}  | {day()} {t()} {level()} ",
    'docker_compose2': lambda: f"db_{n(1,9)}     | {day()}T{t()}.{us()}Z ",
    'heroku': lambda: f"{day()}T{t()}.{us()}+00:00 app[web.{n(1,9)}]: ",
    'aws': lambda: f"{day()}T{t()}.{ms()}Z\t%08x-1111-2222-3333-%012x\t{level()}\t"%(n(0,16**8),n(0,16**12)),
    'cri': lambda: f"{day()}T{t()}.{n(0,10**9):09d}+02:00 stderr F {level()} ",
    'timems_level': lambda: f"{t()}.{ms()} {level()}  [{thread()}] ",
    'epochms': lambda: f"17{n(10**10,10**11-1)} {level()} ",
    'bracket_epoch': lambda: f"[17{n(10**7,10**8-1)}.{us()}] {level()} ",
    'dot_date': lambda: f"{n(10,29)}.04.2024 {t()} {level()}: ",
    'us_date': lambda: f"4/{n(10,29)}/2024 {n(1,12)}:{n(10,59)}:{n(10,59)} PM: ",
    'slash_short': lambda: f"{n(10,29)}/04/24 {t()},{ms()} {level()} ",
    'semicolon': lambda: f"{day()} {t()};{level()};app.main;",
    'comma': lambda: f"{day()} {t()},{level()},app.main,",
    'tab': lambda: f"{day()} {t()}\t{level()}\t{n(1,999)}\tapp.main\t",
}


def patterns(program, lines):
    out = subprocess.run([program, "--pattern"], input="\n".join(lines).encode("utf-8", "surrogateescape"), stdout=subprocess.PIPE, check=True)
    return out.stdout.decode("utf-8", "replace").split("\n")[:-1]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--build", required=True)
    program = ap.parse_args().build + "/bin/fingerprint_id"
    data = os.environ.get("HEAL_LOGHUB") or str(ROOT.parent / "shared/data/loghub")
    files = sorted(glob.glob(data + "/*/*_structured.csv"))
    if not files or not os.path.exists(program):
        print(f"skipped: no labelled sets under {data} (set HEAL_LOGHUB), or {program} is not built")
        return 77
    messages = []
    for f in files:
        rows = list(csv.DictReader(open(f, encoding="utf-8-sig", errors="surrogateescape", newline="")))
        messages += [x["Content"].replace("\n", " ") for x in r.sample(rows, 150) if x["Content"]]
    plain = patterns(program, messages)
    bad = []
    for name, layout in LAYOUTS.items():
        headed = patterns(program, [layout() + m for m in messages])
        ahead, back = collections.defaultdict(set), collections.defaultdict(set)
        for a, b in zip(plain, headed):
            ahead[a].add(b)
            back[b].add(a)
        split, joined = (sum(len(v) > 1 for v in side.values()) for side in (ahead, back))
        print(f"{name:14} patterns split {split}, joined {joined}")
        if split > 0 or joined > MOST_JOINED:
            bad.append(name)
    print(f"{len(LAYOUTS)} layouts, {len(messages)} messages, {len(set(plain))} patterns: " + ("good" if not bad else "bad: " + ", ".join(bad)))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
