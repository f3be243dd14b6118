"""The record of a runtime: all that effnet knows of it outside the runtime's own folder."""

from dataclasses import dataclass

from effnet.bundle.formats import Format, Precision


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """An optional package: its import name, its name in the package index, and effnet's extra that installs it."""

    module: str
    package: str
    extra: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """A runtime and its folder, the Python package `home`.

    The folder holds
    - `writer.py`: `write(target, folder, config, state, images=, quantization=)` writes a format;
    - `engine.py`, if `can_run`: `open_engine(path, threads=, digests=)` returns a `base.Engine`, `preload()` imports
      the runtime; it must not import `writer.py`, which may need torch;
    - `untrained.py`, if `untrained`: `write_untrained(spec, target, folder, pair_stem=)` writes a network with random
      weights, without some packages, data or time that `writer.py` needs.

    `title` is its name in sentences, `need` the package that runs it, `quantizer` the one that writes its int8 files if
    that is another, and `imports` what else its folder imports. Its files and predictions depend on the versions of the
    packages `depends`. `profiled` are the precisions that a device profile measures; others differ from these only in
    the size of the file.

    If `fragile`, a damaged file can crash the process that opens it (see runtimes.probe). If `parallel`, several
    threads may run an engine at once. If `mlas`, int8 is computed by ONNX Runtime's x86 kernels, which saturate on
    processors without VNNI (onnxruntime.int8_graph.levels_here) and are faster with Quantization.pair_stem on others.
    If `maps`, `write` takes `maps=True` too: the file then returns the activation maps (effnet.runtimes.maps).
    If `scored`, its files return the score of a bundle that has one (effnet.tasks.known); in the files of others the
    largest probability decides which images are unknown.
    """

    name: str
    title: str
    home: str
    need: Need
    formats: tuple[Format, ...]
    depends: tuple[str, ...]
    quantizer: Need | None = None
    imports: tuple[Need, ...] = ()
    profiled: tuple[Precision, ...] = ()
    can_run: bool = True
    untrained: bool = False
    fragile: bool = False
    parallel: bool = False
    mlas: bool = False
    maps: bool = False
    scored: bool = False

    @property
    def needs(self) -> tuple[Need, ...]:
        """All packages that its folder imports."""
        return (self.need, *([self.quantizer] if self.quantizer else []), *self.imports)


def formats_of(runtime: str, *rows: tuple[str, Precision, tuple[str, ...]]) -> tuple[Format, ...]:
    """Return the formats of `runtime` from rows of name, precision and files."""
    return tuple(
        Format(name=name, runtime=runtime, precision=precision, file=file, others=tuple(others))
        for name, precision, (file, *others) in rows
    )
