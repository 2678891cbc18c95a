"""Interleaved rounds: every entry of a case is timed once a round, in turns, each in the process of its side."""
import dataclasses, json, statistics, subprocess, time

# OpenBLAS's threads spin for up to 2^26 cycles when they have no work; nobody else's time should contain that.
PAUSE = 0.03


class Failure(Exception):
    """What a worker answers instead of a figure."""


@dataclasses.dataclass
class Plan:
    threads: int
    rounds: int  # at least so many
    seconds: float  # to spend on an entry in a round
    precision: float  # to know each median to, as a share of it


class Worker:
    """A process that answers requests, a line each, with a line of JSON."""

    def __init__(self, name, command, environment):
        self.name, self.command = name, [str(word) for word in command]
        self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, request):
        try:
            self.process.stdin.write(request + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        if not line:
            raise SystemExit(f"{self.name} ended with status {self.process.wait()} at '{request}': {' '.join(self.command)}")
        reply = json.loads(line)
        if "error" in reply:
            raise Failure(reply["error"])
        return reply

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Case:
    """Entries that are compared with each other: label -> (side, request)."""

    def __init__(self, name, entries, **facts):
        self.name, self.entries, self.facts = name, entries, facts


def spread(samples):
    """Half the distance between the quartiles, as a share of the median."""
    if len(samples) < 2:
        return 0.0
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / 2 / median


def uncertainty(samples):
    """Standard error of the median as a share of it, for samples that are about normal: 1.25 σ / √n with σ = 1.48 · half the quartiles' distance."""
    return 1.85 * spread(samples) / len(samples) ** 0.5


def entry(samples, facts):
    """What stands in the results: facts are the flops, bytes or tokens of each sample."""
    return {"median": statistics.median(samples), "spread": round(spread(samples), 4), **facts, "samples": [float(f"{t:.5g}") for t in samples]}


def measure(case, workers, plan):
    """Rounds until every median is known to plan.precision, at least plan.rounds and at most three times as many."""
    samples, facts, errors = {label: [] for label in case.entries}, {}, {}
    done = -1  # the first round makes the operands and does not count
    while done < plan.rounds or (done < 3 * plan.rounds and max((uncertainty(s) for s in samples.values() if s), default=0) > plan.precision):
        for label, (side, request) in case.entries.items():
            if label in errors:
                continue
            try:
                reply = workers[side].ask(f"{request}/threads={case.facts.get('threads', {}).get(label, plan.threads)}/time={plan.seconds}")
            except Failure as e:
                errors[label] = str(e)
                continue
            if done >= 0:
                samples[label].append(reply.pop("seconds"))
                facts[label] = reply
            time.sleep(PAUSE)
        done += 1
    for side in {side for side, _ in case.entries.values()}:
        workers[side].ask("release")
    entries = {label: {"error": text} for label, text in errors.items()}
    for label, times in samples.items():
        if label not in errors:
            entries[label] = entry(times, {key: value for key, value in facts[label].items() if key in ("flops", "bytes") and value})
    return {"name": case.name, **{key: value for key, value in case.facts.items() if key != "threads"}, "rounds": done, "entries": entries}
