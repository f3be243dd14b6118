"""Tell when something stands at the door, in Python: the parts behind `effnet watch` without its process.

python examples/watch_door.py model/ door.mp4 "cat > 0.8 for 2s"     # or: 0 for a webcam, rtsp://HOST/PATH
"""

import argparse

import effnet
from effnet.watching.answers import answer_to, names_of
from effnet.watching.rules.monitor import Monitor
from effnet.watching.rules.read import read_rules
from effnet.watching.settings import Settings
from effnet.watching.sources.source import read_sources
from effnet.watching.sources.video import frames_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("source")
    parser.add_argument("rules", nargs="+")
    args = parser.parse_args()
    model = effnet.load(args.bundle)
    names = names_of(model.config)
    rules = read_rules(args.rules, labels=names.labels, objects=names.objects)
    monitor = Monitor(rules, names, Settings(model=args.bundle))
    (source,) = read_sources([args.source])
    frames = 0
    for frame in frames_of(source, timeout=10):
        seen = answer_to(model, frame.image())
        frames += 1
        # A note has the rule that starts or ends; every time is that of the frame, not of the clock.
        for note in monitor.see(seen, frame.at):
            print(f"{frame.at:.1f} s: {note.kind} of {note.rule!r}: {dict(note.facts)}")
    for note in monitor.stop("the source ended"):
        print(f"at the end: {note.kind} of {note.rule!r}")
    print(f"{frames} frames of {source.shown}")


if __name__ == "__main__":
    main()
