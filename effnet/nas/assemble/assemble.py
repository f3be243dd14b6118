"""Assemble a smaller network from the alternatives of a trained one, and recover it by distillation.

In each round every alternative is scored alone, an integer programme chooses one for every part under the limits, the
best different choices are scored whole, and a few are recovered a little; the best of these is recovered fully, or is
the network of the next round. Sums of scores hold for moderate cuts, so that a deep one takes two rounds.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from effnet.arch.spec import ArchSpec
from effnet.bundle.config import write_text
from effnet.bundle.weights import state_arrays
from effnet.compression.kept import own_folder, subject_key
from effnet.compression.prune import vector_width
from effnet.compression.reconstruct import Sums
from effnet.compression.recovery import network_of, save_teacher
from effnet.compression.subject import Subject
from effnet.data.datasets import Dataset
from effnet.errors import BudgetError
from effnet.measurement.budget import Budget, say
from effnet.nas.assemble.alternatives import SHARES, alternatives, in_words
from effnet.nas.assemble.calibration import calibration
from effnet.nas.assemble.candidates import Candidate, candidates
from effnet.nas.assemble.edit import refitted
from effnet.nas.assemble.figures import FiguresOf, Kept, limited, linear, step_towards
from effnet.nas.assemble.finalist import Finalist, Recovery, Scores, keep_subject, kept_subject
from effnet.nas.assemble.library import Images, make_library, order_of
from effnet.nas.assemble.score import divergence, logits_of
from effnet.nn.network import Network
from effnet.planner.events import Counted, Listener, Said
from effnet.system.files import read_json
from effnet.system.records import from_data, to_data


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How thoroughly a search looks.

    `images` are those of calibration: a library takes about as long as an inference of all of them for each of its
    alternatives (Lite0 has 134, B0 379). Of each part's channels, `shares` stay in its narrower alternatives, rounded
    to a multiple of `round_to`. `number` choices that differ in `distance` parts are scored whole, and `finalists` of
    them are recovered a little: for the share `little` of the epochs. A cut of any limited figure beyond `most_cut`
    takes two rounds.
    """

    images: int = 512
    shares: tuple[float, ...] = SHARES
    round_to: int = field(default_factory=vector_width)
    number: int = 10
    distance: int = 3
    finalists: int = 3
    little: float = 0.2
    most_cut: float = 1.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round: its limits, the networks that were scored whole, those recovered a little, and the best of these."""

    limits: Mapping[str, float]
    scored: tuple[Scores, ...]
    finalists: tuple[Scores, ...]
    winner: Finalist


@dataclass(frozen=True, slots=True, kw_only=True)
class Assembled:
    """The assembled and recovered network, its verified figures, and the rounds that led to it."""

    subject: Subject
    figures: Mapping[str, float]
    rounds: tuple[Round, ...]


def assemble(
    teacher: Subject,
    dataset: Dataset,
    *,
    budget: Budget,
    predict: FiguresOf,
    measure: FiguresOf | None = None,
    epochs: int,
    folder: Path,
    resolutions: Sequence[int] = (),
    seed: int = 0,
    settings: Settings = Settings(),
    listener: Listener,
) -> Assembled:
    """Return the network assembled from the `teacher`, trained on the classes of `dataset`, that meets the budget.

    `predict` returns the figures of a network by their names in a budget, quickly; counts and the size of the weights
    need none. `measure` returns them measured whole, on a file; without it, predictions count. `resolutions` in pixels
    are tried beside the teacher's own. The winner is trained for `epochs` in all; its rivals are not counted.

    Everything finished is kept in `folder`, which is the search's own and emptied by another search: after an
    interruption the same call continues to the same network, on one thread. A teacher that meets the budget is
    returned as it is. Raises BudgetError if no network meets the budget.
    """
    asked = [budget.to_dict(), budget.margin, to_data(settings), list(resolutions), epochs, seed, len(dataset.train)]
    own_folder(folder, json.dumps([subject_key(teacher), *asked]))
    search = _Search(
        teacher=teacher, dataset=dataset, settings=settings, seed=seed, folder=folder, listener=listener,
        figures_of=limited(budget, predict),
        verify=Kept(limited(budget, measure or predict), folder / "figures.json"),
        recovery=Recovery(
            teacher=save_teacher(teacher, folder / "teacher"), dataset=dataset, seed=seed, listener=listener
        ),
    )  # fmt: skip
    cut = budget.share(search.verify(teacher.config.arch))
    if cut <= 1:
        return Assembled(subject=teacher, figures=search.verify(teacher.config.arch), rounds=())
    total = 2 if cut > settings.most_cut else 1
    little = max(1, round(settings.little * epochs))
    current, rounds = teacher, []
    for number in range(1, total + 1):
        listener(Said(text=f"Round {number} of {total}: alternatives of every block", heading=True))
        figures = search.verify(current.config.arch)
        limits = step_towards(budget, figures, rounds=total - number + 1)
        sides = (current.config.preprocess.resolution, *(resolutions if number == 1 else ()))
        # Only networks of the last round must meet measured limits: before, a prediction of the whole is enough.
        verify = search.verify if number == total else search.figures_of
        found = search.round(current, limits, sides, verify=verify, epochs=little, folder=folder / f"round-{number}")
        rounds.append(found)
        current = found.winner.subject
    listener(Said(text="Recovering the assembled network by knowledge distillation", heading=True))
    rest = max(1, epochs - little * total)
    before = rounds[-1].winner.scores.divergence
    whole = search.recovery.recovered(current, divergence=before, epochs=rest, folder=folder / "whole")
    return Assembled(subject=whole, figures=search.verify(whole.config.arch), rounds=tuple(rounds))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """The inputs of every round."""

    teacher: Subject
    dataset: Dataset
    settings: Settings
    seed: int
    folder: Path
    listener: Listener
    figures_of: FiguresOf
    verify: FiguresOf
    recovery: Recovery

    def round(
        self,
        current: Subject,
        limits: Budget,
        sides: Sequence[int],
        *,
        verify: FiguresOf,
        epochs: int,
        folder: Path,
    ) -> Round:
        """Return the round that changes `current` to meet the limits, at one of the resolutions `sides`."""
        finalists: list[Finalist] = []
        scored: list[Scores] = []
        refused: list[BudgetError] = []
        for side in dict.fromkeys(sides):
            try:
                best, others = self._scored(current, side, limits, verify=verify, folder=folder / f"{side}px")
            except BudgetError as error:
                refused.append(error)
                continue
            finalists, scored = [*finalists, *best], [*scored, *others]
        if not finalists:
            raise refused[0]
        tried = [
            self._recovered(finalist, number, epochs=epochs, folder=folder)
            for number, finalist in enumerate(self._best(finalists))
        ]
        winner = min(tried, key=lambda each: each.scores.val_loss or 0.0)
        self.listener(Said(text=f"The best: {self._words(winner.scores)}"))
        return Round(
            limits=limits.limits(),
            scored=tuple(scored),
            finalists=tuple(each.scores for each in tried),
            winner=winner,
        )

    def _recovered(self, finalist: Finalist, number: int, *, epochs: int, folder: Path) -> Finalist:
        self.listener(Said(text=f"Finalist {number + 1}: {self._words(finalist.scores)}"))
        return self.recovery.judged(finalist, epochs=epochs, folder=folder / f"finalist-{number + 1}")

    def _best(self, found: Sequence[Finalist]) -> list[Finalist]:
        """Return the best of each resolution, and the next best of all up to the number of finalists.

        Networks of other resolutions have not been trained for them yet: their divergence says less.
        """
        ranked = sorted(found, key=lambda each: each.scores.divergence)
        first = {each.scores.resolution: each for each in reversed(ranked)}.values()
        rest = [each for each in ranked if each not in first]
        return [*first, *rest][: max(self.settings.finalists, len(first))]

    def _scored(
        self, current: Subject, side: int, limits: Budget, *, verify: FiguresOf, folder: Path
    ) -> tuple[list[Finalist], list[Scores]]:
        """Return the best networks at one resolution, not yet trained, and the scores of all that were assembled."""
        path = folder / "scored.json"
        if path.is_file():
            scored = [from_data(Scores, row, where=str(path)) for row in read_json(path)]
        else:
            scored = self._score(current, side, limits, verify=verify, folder=folder)
            write_text(path, json.dumps(to_data(scored)) + "\n")
        best = [kept_subject(folder / f"best-{rank}") for rank in range(self.settings.finalists)]
        return [
            Finalist(subject=subject, scores=scores)
            for subject, scores in zip(best, scored, strict=False)
            if subject is not None
        ], scored

    def _score(self, current: Subject, side: int, limits: Budget, *, verify: FiguresOf, folder: Path) -> list[Scores]:
        """Return the scores of the assembled networks, the best first; the weights of the best are kept in `folder`."""
        settings, subject = self.settings, at_resolution(current, side)
        images = calibration(subject, self.teacher, self.dataset.train, count=settings.images, seed=self.seed)
        network = network_of(subject)
        if subject is not current:
            refit_classifier_(network, images)
        spec = network.spec
        wanted = alternatives(spec, shares=settings.shares, round_to=settings.round_to)
        library = make_library(
            network, wanted, images, folder=folder / "library", seed=self.seed,
            count=lambda done, total: self.listener(Counted(label="scoring alternatives", done=done, total=total)),
        )  # fmt: skip
        found = candidates(
            linear(spec, library, self.figures_of), limits, verify=verify, number=settings.number,
            distance=settings.distance,
        )  # fmt: skip
        rows: list[tuple[Scores, Subject]] = []
        for number, candidate in enumerate(found):
            left = refitted(network, candidate.choice, order_of(library), images.fit)
            made = Subject(config=dataclasses.replace(subject.config, arch=left.spec), state=state_arrays(left))
            score = divergence(images.score_logits, logits_of(left, images.score))
            rows.append((_scores_of(candidate, spec, score), made))
            rows = sorted(rows, key=lambda row: row[0].divergence)
            self.listener(Counted(label="assembling networks", done=number + 1, total=len(found)))
        for rank, (_, subject) in enumerate(rows[: settings.finalists]):
            keep_subject(subject, folder / f"best-{rank}")
        return [scores for scores, _ in rows]

    def _words(self, scores: Scores) -> str:
        figures = ", ".join(say(name, value) for name, value in scores.figures.items())
        loss = "" if scores.val_loss is None else f", validation loss {scores.val_loss:.4f}"
        return f"{scores.resolution} px, {figures}, divergence {scores.divergence:.4f}{loss}"


def _scores_of(candidate: Candidate, spec: ArchSpec, found: float) -> Scores:
    return Scores(
        resolution=spec.resolution,
        parts=tuple(in_words(spec, part, each) for part, each in candidate.choice.items()),
        summed=candidate.score,
        divergence=found,
        predicted=candidate.summed,
        figures=candidate.figures,
    )


def at_resolution(subject: Subject, side: int) -> Subject:
    """Return the network for images of `side` pixels."""
    config = subject.config
    if config.preprocess.resolution == side:
        return subject
    lineage = dataclasses.replace(config.arch.lineage, resolution=side)
    arch = dataclasses.replace(config.arch, resolution=side, lineage=lineage)
    preprocess = dataclasses.replace(config.preprocess, resolution=side)
    return dataclasses.replace(subject, config=dataclasses.replace(config, arch=arch, preprocess=preprocess))


def refit_classifier_(network: Network, images: Images) -> None:
    """Re-fit the classifier, by least squares, to the teacher's logits for the images to fit."""
    features = logits_of(lambda x: network.forward_head(network.forward_features(x), pre_logits=True), images.fit)
    sums = Sums()
    sums.add(features, images.fit_logits)
    weight, bias = sums.solve(network.classifier.weight.detach().double())
    with torch.no_grad():
        network.classifier.weight.copy_(weight)
        network.classifier.bias.copy_(bias)
