import json
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from scores import score_videos
from torch import Tensor, nn

from hstlib.config import ClipConfig
from hstlib.data.augment import evaluation_views
from hstlib.data.clips import normalise
from hstlib.data.datasets import Sample
from hstlib.data.flow import optical_flow
from hstlib.data.store import VideoClips, prepare_store
from hstlib.training.evaluate import (
    average_views,
    score_clips,
    score_views,
    summarise,
)

CLIP = ClipConfig(size=16, clips_per_video=2)


class Spy(nn.Module):
    """Four logits from the mean colour and the mean flow; remembers its inputs."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 4)
        self.seen: list[tuple[Tensor, Tensor]] = []

    def forward(self, clips: Tensor, flow: Tensor) -> Tensor:
        assert not self.training
        self.seen.append((clips, flow))
        return 9 * self.layer(torch.cat([clips.mean((2, 3, 4)), flow.mean((2, 3, 4))], 1))


@pytest.fixture
def model():
    return Spy()


@pytest.fixture
def samples(tmp_path, video_file, moving):
    """Five videos of 40 frames; the second file is empty."""
    paths = [tmp_path / f"{i}.avi" for i in range(5)]
    for i, path in enumerate(paths):
        video_file(path, moving(seed=i, count=40) // (i + 1))
    paths[1].write_bytes(b"")
    return [Sample(path, i % 4, path.stem) for i, path in enumerate(paths)]


@pytest.fixture
def store(samples, tmp_path, inline_pool):
    return prepare_store([s.path for s in samples], CLIP, tmp_path / "store")


def test_scores_of_clips_are_probabilities(model, store, samples):
    frames, flow = map(torch.from_numpy, store.read_all(samples[0].path)[:2])
    scores = score_clips(model.eval(), frames, flow)
    torch.testing.assert_close(scores.sum(1), torch.ones(2))
    expected = model(normalise(frames), flow.float()).softmax(1)
    torch.testing.assert_close(scores, expected.detach())


def test_score_of_a_video_is_the_mean_over_its_clips(model, store, samples):
    scores = score_videos(model, samples, store)
    for row, sample in zip(scores, samples, strict=True):
        if sample.path in store:
            clips = score_clips(model, *map(torch.from_numpy, store.read_all(sample.path)[:2]))
            np.testing.assert_allclose(row, clips.mean(0), rtol=1e-5)


def test_a_sample_with_a_clip_index_is_scored_by_that_clip_alone(model, store, samples):
    mixed = [samples[0], replace(samples[0], clip_index=1), replace(samples[2], clip_index=0)]
    scores = score_videos(model, mixed, store)
    expected = []
    for sample in (samples[0], samples[2]):
        frames, flow = map(torch.from_numpy, store.read_all(sample.path)[:2])
        expected.append(score_clips(model, frames, flow))
    np.testing.assert_allclose(scores[0], expected[0].mean(0), rtol=1e-5)
    np.testing.assert_allclose(scores[1], expected[0][1], rtol=1e-5)
    np.testing.assert_allclose(scores[2], expected[1][0], rtol=1e-5)


def test_every_crop_of_every_clip_is_a_view(model, store, samples):
    views = score_views(model, samples, store, crop_size=8, num_crops=3)
    assert [None if v is None else v.shape for v in views] == [(6, 4), None, *[(6, 4)] * 3]
    assert {v.dtype for v in views if v is not None} == {np.dtype(np.float32)}
    for index in (0, 1):
        clip = (value[index : index + 1] for value in store.read_all(samples[2].path)[:2])
        crops = (torch.from_numpy(np.ascontiguousarray(v)) for v in evaluation_views(*clip, 8, 3))
        expected = score_clips(model, *crops)
        np.testing.assert_allclose(views[2][3 * index : 3 * index + 3], expected, rtol=1e-5)


def test_a_sample_with_a_clip_index_has_the_crops_of_that_clip_as_views(model, store, samples):
    (whole,) = score_views(model, samples[:1], store, crop_size=8, num_crops=3)
    (one,) = score_views(
        model, [replace(samples[0], clip_index=1)], store, crop_size=8, num_crops=3
    )
    np.testing.assert_allclose(one, whole[3:], rtol=1e-5)


def test_average_of_views_by_hand():
    views = [np.array([[1, 0], [0.5, 0.5]], np.float32), None]
    np.testing.assert_array_equal(average_views(views, 2), [[0.75, 0.25], [np.nan, np.nan]])


def test_videos_without_a_store_are_scored_alike(model, store, samples):
    direct = score_views(model, samples, VideoClips(CLIP))
    for view, expected in zip(direct, score_views(model, samples, store), strict=True):
        assert (view is None) == (expected is None)
        assert view is None or np.allclose(view, expected, rtol=1e-5)


def test_row_of_an_unreadable_video_is_nan(model, store, samples):
    scores = score_videos(model, samples, store)
    assert scores.shape == (5, 4)
    assert np.isnan(scores).all(1).tolist() == [False, True, False, False, False]


@pytest.mark.parametrize("crop_size", [0, 8])
def test_scores_have_all_classes_even_if_no_video_can_be_read(model, store, samples, crop_size):
    scores = score_videos(model.train(), samples[1:2] * 3, store, crop_size=crop_size)
    assert scores.shape == (3, 4) and scores.dtype == np.float32 and np.isnan(scores).all()
    assert not model.training


def test_an_unreadable_video_counts_as_wrong(model, store, samples):
    views = score_views(model, samples, store)
    scores = average_views(views, 4)
    best = [int(row.argmax()) for row in np.nan_to_num(scores)]
    summary = summarise(scores, best, views)
    assert summary["top1"] == summary["top5"] == 0.8
    assert (summary["videos"], summary["unreadable"]) == (5, 1)
    assert summary["clip_top1"] <= 0.8
    assert summary["mean_class"] < 1


def test_summary_by_hand():
    views = [
        np.array([[0.95, 0.05], [0.75, 0.25]], np.float32),
        np.array([[0.55, 0.45], [0.0, 1.0]], np.float32),
        np.array([[0.65, 0.35], [0.65, 0.35]], np.float32),
        None,
    ]
    summary = summarise(average_views(views, 2), [0, 1, 1, 1], views)
    assert list(summary) == [
        "top1", "top5", "mean_class", "clip_top1", "ece", "videos", "unreadable",
    ]  # fmt: skip
    expected = {
        "top1": 2 / 4,
        "top5": 3 / 4,
        "mean_class": (1 / 1 + 1 / 3) / 2,
        "clip_top1": 3 / 8,
        "ece": (0.15 + 0.275 + 0.65) / 3,  # 0.85 and 0.725 are right, 0.65 is wrong
        "videos": 4,
        "unreadable": 1,
    }
    assert summary == pytest.approx(expected)


def test_a_summary_without_views_has_no_clip_accuracy():
    summary = summarise(np.array([[0.9, 0.1], [0.2, 0.8]]), [0, 1])
    assert summary.keys() == {"top1", "top5", "mean_class", "ece", "videos", "unreadable"}


def test_without_any_readable_video_all_are_wrong_and_none_is_calibrated(model, store, samples):
    views = score_views(model, samples[1:2], store)
    assert summarise(average_views(views, 4), [1], views) == {
        "top1": 0.0, "top5": 0.0, "mean_class": 0.0, "clip_top1": 0.0, "videos": 1, "unreadable": 1,
    }  # fmt: skip


@pytest.mark.parametrize("chosen", [slice(None), slice(1, 2)], ids=["some", "unreadable only"])
def test_a_summary_is_valid_json(model, store, samples, chosen):
    views = score_views(model, samples[chosen], store)
    labels = [sample.label for sample in samples[chosen]]
    summary = summarise(average_views(views, 4), labels, views)
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert {type(value) for value in summary.values()} == {int, float}


@pytest.mark.parametrize(("batch_size", "sizes"), [(3, [3, 3, 2]), (8, [8]), (64, [8])])
def test_batches_are_full_across_videos(model, store, samples, batch_size, sizes):
    score_videos(model, samples, store, batch_size)
    assert [len(clips) for clips, _ in model.seen] == sizes


def test_no_more_than_a_batch_of_clips_is_read_ahead(model, samples):
    """A video of a thousand clips, each of which is made when it is asked for."""
    clip, read = ClipConfig(size=16, clips_per_video=1000), []

    class Lazy:
        def __init__(self, values):
            self.values = values

        def __len__(self):
            return 1000

        def __getitem__(self, index):
            read.append(index)
            return self.values

    class Store(VideoClips):
        def read_all(self, path):
            frames, flow = (
                np.zeros((16, 16, 16, 3), np.uint8),
                np.zeros((2, 16, 16, 16), np.float16),
            )
            return Lazy(frames), Lazy(flow), None

    class Watching(Spy):
        def forward(self, clips, flow):
            assert len(clips) <= 7
            assert len(read) // 2 <= sum(len(c) for c, _ in self.seen) + 7
            return super().forward(clips, flow)

    (views,) = score_views(Watching(), samples[:1], Store(clip), batch_size=7)
    assert views.shape == (1000, 4) and len(read) == 2000


def test_a_batch_of_nothing_is_refused(model, store, samples):
    with pytest.raises(ValueError, match="batch_size is 0"):
        score_views(model, samples, store, batch_size=0)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 64])
@pytest.mark.parametrize("seed", [None, 5])
def test_scores_do_not_depend_on_the_batch_size(model, store, samples, batch_size, seed):
    expected = score_videos(model, samples, store, shuffle_time_seed=seed)
    scores = score_videos(model, samples, store, batch_size, shuffle_time_seed=seed)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_scoring_leaves_the_model_in_evaluation_mode_and_without_gradients(model, store, samples):
    score_videos(model.train(), samples, store)
    assert not model.training
    assert all(p.grad is None for p in model.parameters())


def seen_by(model: Spy, store, samples, seed: int | None) -> tuple[Tensor, Tensor]:
    model.seen.clear()
    score_videos(model, samples[:1], store, shuffle_time_seed=seed)
    return model.seen[0]


def test_shuffling_keeps_the_frames_and_changes_their_order(model, store, samples):
    plain, _ = seen_by(model, store, samples, None)
    shuffled, _ = seen_by(model, store, samples, 3)
    for before, after in zip(plain, shuffled, strict=True):
        equal = (before[:, :, None] == after[:, None]).all(0).flatten(2).all(2)
        assert (equal.sum(0) >= 1).all() and (equal.sum(1) >= 1).all()
        assert not equal.diagonal().all()


def test_shuffling_is_a_function_of_the_seed(model, store, samples):
    first, again, other = (seen_by(model, store, samples, seed)[0] for seed in (3, 3, 4))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_shuffling_computes_the_flow_anew(model, store, samples):
    clips, flow = seen_by(model, store, samples, 3)
    frames = store.read_all(samples[0].path).frames
    order = [
        next(
            t for t, f in enumerate(normalise(torch.from_numpy(frames))[0].unbind(1)) if f.equal(c)
        )
        for c in clips[0].unbind(1)
    ]
    expected = optical_flow(frames[0][order]).astype(np.float16)
    np.testing.assert_array_equal(flow[0].numpy(), expected)


def test_scoring_that_takes_long_says_how_far_it_is(model, store, samples, monkeypatch, caplog):
    monkeypatch.setattr("hstlib.training.evaluate.SECONDS_PER_LINE", 0)
    with caplog.at_level(logging.INFO, "hstlib"):
        score_videos(model, samples, store)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [f"scored {n} of {len(samples)} videos" for n in range(len(samples))]
