"""Floor 6. The option tree of `restore bench`, and the checks between its sections (no torch).

A matrix is networks × variants of inference × sets × protocols. A cell of it is one test of one
network on one set, and reads as such: `BenchTree.cells` gives each as a `TestTree`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from restore.archs.table import NETWORK, PRESETS, architecture_of
from restore.catalog import nearest
from restore.errors import Problem
from restore.metrics.options import Protocols
from restore.options import Document
from restore.recipes.checks import check_channels, check_test
from restore.recipes.trees import (
    PathOptions,
    Run,
    TestingOptions,
    TestSets,
    TestTree,
    set_name,
)
from restore.reports.published.table import published, published_as
from restore.section import Section, UserPath, mistake
from restore.training.options import DistOptions

SCORING = ("protocol", "metrics", "crop_border", "report_images", "save_img", "suffix", "pbar")
"""The keys of `val` that leave the restored image as it is."""


class BenchNetwork(Section):
    """One network of a matrix: a published variant by name, or its options."""

    preset: str | None = None
    """A published variant, as `SPAN_x4`; network_g otherwise."""
    network_g: Annotated[Section, NETWORK] | None = None
    weights: UserPath
    """A weights file, or the folder of a run or checkpoint of ours."""
    strict_load_g: bool = True
    param_key_g: Literal["params", "params_ema", "state_dict", "model", "net_g"] | None = None

    @field_validator("preset")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        if name is not None and name not in PRESETS:
            near = nearest(name, PRESETS)
            raise mistake(
                "OPT24",
                "unknown published variant",
                "one of " + ", ".join(PRESETS),
                f"did you mean '{near}'?" if near else "use network_g",
            )
        return name

    def options(self) -> Section:
        """The network's options."""
        if self.network_g is not None:
            return self.network_g
        assert self.preset is not None
        return PRESETS[self.preset]


class _Named(Section):
    """Sections by names that the file chooses."""

    model_config = {"extra": "allow"}
    further_keys = r"[^/\\]{1,60}"

    def by_name(self) -> dict[str, Any]:
        """Name -> section, in the file's order."""
        return dict(self.__pydantic_extra__ or {})


class BenchNetworks(_Named):
    """Networks by the names that the tables print."""

    further_examples = ("SPAN", "MaIR-S")
    __pydantic_extra__: dict[str, BenchNetwork] = Field(init=False)  # pyright: ignore

    @classmethod
    def child(cls, key: str, value: object) -> type[Section] | None:
        return BenchNetwork


class BenchVariants(_Named):
    """Ways of inference by name; each says what of `val` it changes."""

    further_examples = ("whole", "ensemble")
    __pydantic_extra__: dict[str, TestingOptions] = Field(init=False)  # pyright: ignore

    @classmethod
    def child(cls, key: str, value: object) -> type[Section] | None:
        return TestingOptions


class BenchPaths(Section):
    """`path` of a matrix."""

    experiments_root: UserPath = "experiments"


@dataclass(frozen=True)
class Cell:
    """One field of the matrix. `tree` is the test that fills it."""

    network: str
    variant: str
    set: str
    protocol: str
    tree: TestTree
    named: bool
    """Whether the file names the protocol: then it is a failure that it does not fit the set."""

    @property
    def contender(self) -> str:
        """What the tables call the network under this variant."""
        return f"{self.network}, {self.variant}" if self.variant else self.network

    @property
    def place(self) -> tuple[str, str, str]:
        """Network, variant and set: the cells of one place are restored together."""
        return self.network, self.variant, self.set

    @property
    def restoration(self) -> str:
        """That place in words."""
        return f"{self.contender} on {self.set}"

    def __str__(self) -> str:
        return f"{self.restoration}, {self.protocol}"


def under_all(cells: Sequence[Cell]) -> TestTree:
    """One test for the cells of one place, under the protocols of all of them."""
    tree = cells[0].tree
    val = tree.val.under(tuple(cell.protocol for cell in cells))
    return tree.model_copy(update={"val": val})


class BenchTree(Run):
    """A benchmark file."""

    networks: BenchNetworks
    datasets: TestSets
    protocols: Protocols | None = None
    """Scoring rules, or `all` that fit; `val`'s own when left out."""
    variants: BenchVariants = BenchVariants()
    """Ways of inference, as `x8: {ensemble: 8}`; `val` as it stands when left out."""
    published: tuple[str, ...] = ()
    """Published rows printed under the tables, as `SPAN/SPAN/SRx4`."""
    val: TestingOptions = TestingOptions()
    path: BenchPaths = BenchPaths()
    dist_params: DistOptions = DistOptions()

    @field_validator("published")
    @classmethod
    def _published(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not published_as(name):
                near = nearest(name, {row.name for row in published()})
                raise mistake(
                    "OPT24",
                    "no published figures of this name",
                    "family/variant/task of a row in restore/reports/published",
                    f"did you mean '{near}'?" if near else "remove it",
                )
        return names

    def cells(self) -> Iterator[Cell]:
        """The matrix, network by network, variant by variant, set by set, protocol by protocol."""
        variants = self.variants.by_name() or {"": TestingOptions()}
        for network, about in self.networks.by_name().items():
            for variant, changed in variants.items():
                val = self._val(changed)
                for key, data in self.datasets.evaluated().items():
                    name = set_name(key, data)
                    for rule, _ in val.rules(self.scale):
                        tree = self._test(about, key, data, val.under((rule.name,)))
                        yield Cell(network, variant, name, rule.name, tree, val.named)

    def _val(self, changed: TestingOptions) -> TestingOptions:
        given = {key: getattr(changed, key) for key in changed.model_fields_set}
        if self.protocols is not None:
            given |= {"protocol": self.protocols, "metrics": None}
        return self.val.model_copy(update=given)

    def _test(self, about: BenchNetwork, key: str, data: Section, val: TestingOptions) -> TestTree:
        return TestTree(
            name=self.name,
            scale=self.scale,
            num_gpu=self.num_gpu,
            num_threads=self.num_threads,
            manual_seed=self.manual_seed,
            network_g=about.options(),
            datasets=TestSets(**{key: data}),  # pyright: ignore[reportArgumentType]
            val=val,
            path=PathOptions(
                pretrain_network_g=about.weights,
                strict_load_g=about.strict_load_g,
                param_key_g=about.param_key_g,
                experiments_root=self.path.experiments_root,
            ),
            dist_params=self.dist_params,
        )


def check_bench(tree: BenchTree, document: Document) -> list[Problem]:
    """What is wrong between the sections of a benchmark file."""
    problems = [*_filled(tree, document), *_said_once(tree, document)]
    if problems:
        return problems
    problems = [
        *_names(tree, document),
        *_variants(tree, document),
        *_networks(tree, document),
    ]
    seen: set[Problem] = set()
    for cell in tree.cells():  # each is a test file, and checked as one
        seen |= {p for p in check_test(cell.tree, document) if p.code not in ("OPT33", "OPT37")}
    return problems + sorted(seen, key=str)


def _filled(tree: BenchTree, document: Document) -> Iterator[Problem]:
    axes = {"networks": tree.networks.by_name(), "datasets": tree.datasets.evaluated()}
    for name, found in axes.items():
        if not found:
            wanted, fix = "at least one", f"add one under {name}"
            yield document.problem((name,), "OPT12", f"no {name}", "none", wanted, fix)


def _said_once(tree: BenchTree, document: Document) -> Iterator[Problem]:
    for name, network in tree.networks.by_name().items():
        given = [key for key in ("preset", "network_g") if getattr(network, key) is not None]
        if len(given) != 1:
            yield document.problem(
                ("networks", name),
                "OPT35",
                "which network is not said once",
                " and ".join(given) or "neither preset nor network_g",
                "one of preset and network_g",
                "keep one",
            )


def _names(tree: BenchTree, document: Document) -> Iterator[Problem]:
    """Sets with one name would share the rows of a table."""
    names = [set_name(key, data) for key, data in tree.datasets.evaluated().items()]
    for name in sorted({name for name in names if names.count(name) > 1}):
        what, fix = "two sets of one name", "rename one"
        yield document.problem(("datasets",), "OPT44", what, name, "each name once", fix)


def _variants(tree: BenchTree, document: Document) -> Iterator[Problem]:
    """A variant changes how images are restored; how they are scored is the matrix's own axis."""
    for name, changed in tree.variants.by_name().items():
        for key in SCORING:
            if key in changed.model_fields_set:
                yield document.problem(
                    ("variants", name, key),
                    "OPT35",
                    f"a variant cannot change {key}",
                    key,
                    "keys that change how an image is restored, as ensemble",
                    "set it under val or protocols",
                )


def _networks(tree: BenchTree, document: Document) -> Iterator[Problem]:
    """Each network's scale and channels against the matrix's."""
    for name, about in tree.networks.by_name().items():
        options: Any = about.options()
        scale = architecture_of(options).scale(options)
        if scale != tree.scale:
            yield document.problem(
                ("networks", name),
                "OPT33",
                f"scale differs from {name}'s",
                str(tree.scale),
                str(scale),
                "a matrix has one scale; make another file",
            )
        yield from check_channels(tree.datasets.evaluated(), options, name, document)
