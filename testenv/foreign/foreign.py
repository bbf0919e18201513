"""A foreign process: the actions of package foreign, in python's sqlite3. Ends when standard input does."""
import json
import os
import select
import sqlite3
import sys
import threading
import time
import urllib.parse

CHECK = """SELECT seq, total, touched, accounts,
 (SELECT sum(balance) FROM account), (SELECT sum(touched) FROM account), (SELECT max(touched) FROM account),
 (SELECT count(*) FROM account), (SELECT coalesce(max(seq), 0) FROM transfer) FROM ledger"""

cfg = json.loads(sys.argv[1])
opt = cfg["db"]
ended = threading.Event()
rep = dict(final=False, rounds=0, checks=0, states=0, writes=0, busy=0, first_seq=-1, last_seq=0, max_round=0,
           sqlite=sqlite3.sqlite_version)
seen = []
sent = 0.0


class Violation(Exception):
    def __init__(self, what, seq, detail):
        super().__init__(detail)
        self.what, self.seq = what, seq


def watch_parent():
    while os.read(0, 4096):
        pass
    ended.set()
    time.sleep(5)
    os._exit(3)


def is_busy(e):
    return isinstance(e, sqlite3.OperationalError) and "locked" in str(e)


def connect():
    path = urllib.parse.quote(os.path.abspath(cfg["path"]))
    uri = "file:" + path + "?mode=" + (opt.get("mode") or "rwc")
    db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=opt.get("busy_timeout", 0) / 1e9)
    run = []
    if opt.get("exclusive"):
        run.append("locking_mode=exclusive")
    if opt.get("journal"):
        run.append("journal_mode=" + opt["journal"])
    run.append("synchronous=" + (opt.get("synchronous") or "normal"))
    if opt.get("auto_checkpoint"):
        run.append("wal_autocheckpoint=%d" % max(opt["auto_checkpoint"], 0))
    run.append("mmap_size=%d" % opt.get("mmap", 0))
    if opt.get("cache_kib"):
        run.append("cache_size=-%d" % opt["cache_kib"])
    for r in run:
        db.execute("PRAGMA " + r).fetchall()
    for r in opt.get("pragmas") or []:
        db.execute(r).fetchall()
    return db


def report(final):
    global sent, seen
    now = time.monotonic()
    if not final and "violation" not in rep and now - sent < 0.1:
        return
    sent = now
    rep["final"] = final
    sys.stdout.write(json.dumps(dict(rep, seen=[dict(seq=s, at=a) for s, a in seen])) + "\n")
    sys.stdout.flush()
    seen = []


def saw(seq):
    rep["checks"] += 1
    if rep["first_seq"] < 0:
        rep["first_seq"] = rep["last_seq"] = seq
        rep["states"] = 1
        return
    if seq < rep["last_seq"]:
        raise Violation("backwards", seq, "seq %d after %d" % (seq, rep["last_seq"]))
    if seq > rep["last_seq"]:
        rep["states"] += 1
    rep["last_seq"] = seq


def check(db):
    s = db.execute(CHECK).fetchone()
    seq, total, touched, accounts, balances, touches, newest, count, last = s
    if (total, touched, seq, seq, accounts) != (balances, touches, newest, last, count):
        raise Violation("invariant", seq, "bank at seq %d: %r" % (seq, s))
    return seq


def read(db):
    saw(check(db))


def hold(db):
    db.execute("BEGIN")
    end, first = time.monotonic() + cfg["hold"] / 1e9, -1
    while True:
        seq = check(db)
        if first >= 0 and seq != first:
            raise Violation("moved", seq, "seq %d, then %d in one transaction" % (first, seq))
        first = seq
        saw(seq)
        report(False)
        left = end - time.monotonic()
        if left <= 0 or ended.wait(min(0.02, left)):
            break
    db.execute("COMMIT")


def try_write(db):
    try:
        db.execute("UPDATE ledger SET total = total")
    except sqlite3.OperationalError as e:
        if not is_busy(e):
            raise
        rep["busy"] += 1
        return
    rep["writes"] += 1
    raise Violation("wrote", 0, "a stray write went through")


def checkpoint(db):
    try:
        busy = db.execute("PRAGMA wal_checkpoint(%s)" % cfg["mode"]).fetchone()[0]
    except sqlite3.OperationalError as e:
        if not is_busy(e):
            raise
        busy = 1
    rep["busy"] += busy


def write(db):
    due = began + (rep["rounds"] / cfg["rate"] if cfg["rate"] else 0)
    if ended.wait(max(0, due - time.monotonic())):
        return
    import random
    r = write.__dict__.setdefault("rng", random.Random(cfg["seed"]))
    n = write.__dict__.setdefault("n", db.execute("SELECT accounts FROM ledger").fetchone()[0])
    src, dst = r.sample(range(1, n + 1), 2)
    try:
        cur = db.execute("INSERT INTO transfer(seq, src, dst, amount, at, note) SELECT seq+1, ?, ?, ?, ?, x'' FROM ledger",
                         (src, dst, r.randint(1, 100), time.time_ns()))
    except sqlite3.OperationalError as e:
        if not is_busy(e):
            raise
        rep["busy"] += 1
        return
    rep["writes"] += 1
    saw(cur.lastrowid)


def probe(db):
    seq = db.execute("SELECT seq FROM ledger").fetchone()[0]
    at, last, first = time.time_ns(), rep["last_seq"], rep["first_seq"] < 0
    saw(seq)
    if first or seq != last:
        seen.append((seq, at))


def pause(seconds):
    if seconds > 0.003:
        ended.wait(seconds)
    elif seconds > 0:
        select.select([], [], [], seconds)


actions = dict(read=read, hold=hold, trywrite=try_write, checkpoint=checkpoint, write=write, probe=probe)
threading.Thread(target=watch_parent, daemon=True).start()
began = time.monotonic()
db = None
while not ended.is_set() and "violation" not in rep and (not cfg["limit"] or rep["rounds"] < cfg["limit"]):
    start = time.monotonic_ns()
    try:
        if db is None:
            db = connect()
        actions[cfg["action"]](db)
    except Violation as e:
        rep["violation"] = dict(what=e.what, seq=e.seq, detail=str(e))
    except sqlite3.Error as e:
        if is_busy(e):
            rep["busy"] += 1
        rep["violation"] = dict(what="busy" if is_busy(e) else "error", seq=rep["last_seq"], detail=repr(e))
    rep["rounds"] += 1
    rep["max_round"] = max(rep["max_round"], time.monotonic_ns() - start)
    if cfg["fresh"] and db is not None:
        db.close()
        db = None
    report(False)
    pause(cfg["interval"] / 1e9)
report(True)
