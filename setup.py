"""Packaging of restore: ranges here, the tested pins in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.sdist import sdist

here = Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "restore/__init__.py").read_text()).group(1)

SOURCES = """
graft benchmarks
graft docs
graft options
graft scripts
graft tests
include CHANGELOG.md CONTRIBUTING.md Makefile requirements.txt requirements-test.txt
include train.py test.py datasets/README.md experiments/README.md .ci/run .gitignore
global-exclude *.py[cod] __pycache__
"""


class WholeProject(sdist):
    """A source archive from which all that README.md shows can be done, tests too."""

    def make_distribution(self):
        for line in SOURCES.strip().splitlines():
            self.filelist.process_template_line(line)
        self.filelist.remove_duplicates()
        super().make_distribution()


setup(
    name="restore",
    version=version,
    description="Train, test and compare image-restoration networks",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "docs/licences.md"],
    classifiers=[
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.14",
        "Topic :: Scientific/Engineering :: Image Processing",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    cmdclass={"sdist": WholeProject},
    packages=find_packages(include=["restore", "restore.*"]),
    package_data={
        "restore": [
            "kernels/*",
            "py.typed",
            "metrics/kernels/*",
            "ops/selective_scan/kernels/*",
            "reports/page/*.j2",
            "reports/page/*.css",
            "reports/page/*.js",
            "reports/published/*.yml",
        ]
    },
    entry_points={"console_scripts": ["restore=restore.commands.main:main"]},
    install_requires=[
        "torch>=2.10",
        "numpy>=1.26",
        "scipy>=1.11",
        "opencv-python-headless>=4.11",
        "isal>=1.6",
        "pyyaml>=6.0",
        "pydantic>=2.7",
        "lmdb>=1.4",
        "tensorboard>=2.14",
        "scikit-image>=0.22",
        "tqdm>=4.66",
        "safetensors>=0.4.5",
        "jinja2>=3.1",
        "matplotlib>=3.8",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.5",
            "hypothesis>=6.100",
            "playwright>=1.45",
            "ruff>=0.6",
            "pyright>=1.1",
            "jsonschema>=4.20",
        ],
        "mamba": ["mamba-ssm>=2.2"],
        "triton": ["triton>=3.0"],
        "metrics": ["lpips>=0.1.4", "dists-pytorch>=0.1"],
        "export": ["onnx>=1.16", "onnxruntime>=1.18", "onnxscript>=0.1"],
        "wandb": ["wandb>=0.17"],
        "basicsr": ["basicsr>=1.4.2"],
    },
)
