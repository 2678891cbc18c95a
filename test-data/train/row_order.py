"""RowOrder in Python, written from the Javadoc of io.lora4j.train.data.RowOrder, and values of it.

    python3 row_order.py > row_orders.json

order(rows, seed, epoch): Fisher and Yates' shuffle of 0 … rows − 1 from the last place down, with numbers of SplitMix64 whose state starts at
mix(seed) + mix(epoch + 1); a draw below b is a 63-bit number modulo b, where numbers at or above the largest multiple of b in 0 … 2⁶³ − 1 are
thrown away.
"""
import hashlib
import json

MASK = 2**64 - 1


def mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def numbers(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        yield mix(state) >> 1


def order(rows, seed, epoch):
    """seed is a signed 64-bit number, epoch 0 for the first."""
    draws = numbers((mix(seed & MASK) + mix(epoch + 1)) & MASK)
    places = list(range(rows))
    for i in reversed(range(1, rows)):
        bound = i + 1
        limit = (2**63 - 1) // bound * bound
        j = next(n for n in draws if n < limit) % bound
        places[i], places[j] = places[j], places[i]
    return places


def main():
    cases = [{"rows": rows, "seed": seed, "epoch": epoch, "order": order(rows, seed, epoch)}
             for rows, seed, epoch in [(1, 42, 0), (2, 42, 0), (2, 42, 1), (2, 42, 2), (7, 42, 0), (7, 42, 1), (7, 43, 0), (40, 42, 0), (40, 42, 1),
                                       (40, 42, 2), (10, 0, 0), (10, -1, 0), (10, 2**63 - 1, 3), (10, -2**63, 2**31 - 2)]]
    # A long order as the hash of its numbers in decimal, separated by commas.
    cases += [{"rows": rows, "seed": seed, "epoch": epoch,
               "sha256": hashlib.sha256(",".join(map(str, order(rows, seed, epoch))).encode()).hexdigest()}
              for rows, seed, epoch in [(1000, 42, 0), (100_000, 7, 5)]]
    print('{"cases": [\n' + ",\n".join(json.dumps(case) for case in cases) + "\n]}")


if __name__ == "__main__":
    main()
