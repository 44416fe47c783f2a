"""Where the data sets are published: mirrors, sizes and hashes, and the rules of the Hub."""

import os
from dataclasses import dataclass
from urllib.parse import urlsplit

HUB = "https://huggingface.co"
"""Address of the Hub; the variable ``HF_ENDPOINT`` replaces it."""


@dataclass(frozen=True)
class Mirror:
    """One address of an archive.

    Attributes:
        url: Address; ends in the archive's file name.
        size: Size in bytes.
        hash: ``sha256:...`` or ``md5:...``; None if no hash is known.
        rough: Whether the size is an estimate; the archive may be half or twice as large.
    """

    url: str
    size: int
    hash: str | None
    rough: bool = False

    @property
    def address(self) -> str:
        """The address to ask: that of the Hub follows ``HF_ENDPOINT``."""
        return hub() + self.url.removeprefix(HUB) if self.url.startswith(HUB + "/") else self.url

    @property
    def limit(self) -> int:
        """Largest size that the archive may have, in bytes."""
        return 2 * self.size if self.rough else self.size

    def fits(self, size: int) -> bool:
        """Return whether an archive of this size can be the published one."""
        return self.size // 2 <= size <= self.limit if self.rough else size == self.size


@dataclass(frozen=True)
class Source:
    """One folder of a data set, and the mirrors of its archive.

    Attributes:
        folders: Name of the folder, and other accepted names.
        pattern: Pattern of the file names in it.
        unpacked: Maximum size of the folder, in bytes.
        mirrors: Mirrors, in the order in which they are tried.
        files: Number of files in the published folder; 0 if unknown.
    """

    folders: tuple[str, ...]
    pattern: str
    unpacked: int
    mirrors: tuple[Mirror, ...]
    files: int = 0


def hub() -> str:
    """Return the address of the Hub or of its mirror, without a slash at the end."""
    return os.environ.get("HF_ENDPOINT", "").strip().rstrip("/") or HUB


def hub_token(url: str) -> str | None:
    """Return the user's token for the Hub, ``HF_TOKEN``, if the address is on the Hub's host.

    Args:
        url: Address that is about to be asked, such as the target of a redirect.
    """
    token = "".join(os.environ.get("HF_TOKEN", "").split())
    return token if token and _origin(url) == _origin(hub()) else None


def _origin(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    return parts.scheme, parts.netloc.lower()


_DATASETS = HUB + "/datasets/"
_HMDB51 = _DATASETS + "MichiganNLP/hmdb/resolve/16eb4625d3bf20255526e1327ee9e2ea32d66c82/"
_UCF101 = _DATASETS + "quchenyuan/UCF101-ZIP/resolve/04d4e5ca1dc93606cb58752b0c08331e598743a4/"
_SERRE_LAB = "https://serre-lab.clps.brown.edu/wp-content/uploads/2013/10/"
_CRCV = "https://www.crcv.ucf.edu/"
_JHMDB = "https://files.is.tue.mpg.de/jhmdb/"
_UCF101_LISTS = "UCF101TrainTestSplits-RecognitionTask.zip"
_UCF101_LISTS_HASH = "sha256:5c0d1a53b8ed364a2ac830a73f405e51bece7d98ce1254fd19ed4a36b224bd27"

SOURCES: dict[str, tuple[Source, Source]] = {
    "hmdb51": (
        Source(("testTrainMulti_7030_splits",), "*_test_split[123].txt", 5_000_000, (
            Mirror(_HMDB51 + "test_train_splits.zip", 222_848,
                   "sha256:12df0053bd9d570817edb10d2299030f43646969d5d42ff40200249b45ab2efa"),
            Mirror(_SERRE_LAB + "test_train_splits.rar", 200_000,
                   "md5:15e67781e70dcfbdce2d7dbb9b3344b5", rough=True),
        ), files=153),
        Source(("hmdb51_org",), "*.avi", 5_000_000_000, (
            Mirror(_HMDB51 + "hmdb51_org.zip", 4_246_812_958,
                   "sha256:2d652f386debd04ae8f83508faacb959c03c9cbf1176fc76848b73cda4d52e57"),
            Mirror(_SERRE_LAB + "hmdb51_org.rar", 2_100_000_000,
                   "md5:517d6f1f19f215c45cdd4d25356be1fb", rough=True),
        ), files=6766),
    ),
    "ucf101": (
        Source(("ucfTrainTestlist",), "*.txt", 5_000_000, (
            Mirror(_UCF101 + _UCF101_LISTS, 113_943, _UCF101_LISTS_HASH),
            Mirror(_CRCV + "data/UCF101/" + _UCF101_LISTS, 113_943, _UCF101_LISTS_HASH),
            Mirror(_CRCV + "wp-content/uploads/2019/03/" + _UCF101_LISTS, 113_943,
                   _UCF101_LISTS_HASH),
        ), files=7),
        Source(("UCF-101", "UCF101"), "*.avi", 8_000_000_000, (
            Mirror("https://storage.googleapis.com/thumos14_files/UCF101_videos.zip", 6_960_400_115,
                   "sha256:dabf56f573cd19c79e096563529fec8126a2a34e18e10c72eb621dd687532b0d"),
            Mirror(_UCF101 + "UCF-101.zip", 6_957_373_664,
                   "sha256:eb77e54dfafd9c77e7b086f5e5ef7738cabd16a701b3f5c301a1f6c81fc4756e"),
            Mirror(_CRCV + "datasets/human-actions/ucf101/UCF101.rar", 6_932_971_618, None),
        ), files=13_320),
    ),
    "jhmdb": (
        Source(("splits",), "*_test_split[123].txt", 5_000_000, (
            Mirror(_JHMDB + "splits.zip", 43_785, "md5:15b9f2f7a99d63c07f3be0c9ecde43b5"),
        ), files=63),
        Source(("ReCompress_Videos",), "*.avi", 500_000_000, (
            Mirror(_JHMDB + "JHMDB_video.zip", 185_602_053,
                   "md5:0aca5af988892c8c2afe652a30544b8c"),
        ), files=928),
    ),
}  # fmt: skip
"""The split lists and the videos of each data set."""

LISTED_VIDEOS = {"hmdb51": 6766, "ucf101": 13_320}
"""Number of videos that the official split lists name."""
