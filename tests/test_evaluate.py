from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from hstlib.config import ClipConfig, TrainConfig
from hstlib.datasets import Sample, normalise
from hstlib.evaluate import predict_video, score_clips, score_videos, summarise
from hstlib.flow import optical_flow
from hstlib.store import prepare_store
from hstlib.video import VideoError

CLIP = ClipConfig(size=16, num_windows=2)
TRAINED = TrainConfig(clip=CLIP)


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


def test_a_sample_of_one_window_is_scored_by_that_clip_alone(model, store, samples):
    mixed = [samples[0], replace(samples[0], window=1), replace(samples[2], window=0)]
    scores = score_videos(model, mixed, store)
    expected = []
    for sample in (samples[0], samples[2]):
        frames, flow = map(torch.from_numpy, store.read_all(sample.path)[:2])
        expected.append(score_clips(model, frames, flow))
    np.testing.assert_allclose(scores[0], expected[0].mean(0), rtol=1e-5)
    np.testing.assert_allclose(scores[1], expected[0][1], rtol=1e-5)
    np.testing.assert_allclose(scores[2], expected[1][0], rtol=1e-5)


def test_row_of_an_unreadable_video_is_nan(model, store, samples):
    scores = score_videos(model, samples, store)
    assert scores.shape == (5, 4)
    assert np.isnan(scores).all(1).tolist() == [False, True, False, False, False]


def test_an_unreadable_video_counts_as_wrong(model, store, samples):
    scores = score_videos(model, samples, store)
    best = [int(row.argmax()) for row in np.nan_to_num(scores)]
    summary = summarise(scores, best)
    assert summary == {"top1": 0.8, "top5": 0.8, "videos": 5, "unreadable": 1}


def test_scores_without_any_readable_video_are_all_wrong(model, store, samples):
    scores = score_videos(model, samples[1:2], store)
    assert summarise(scores, [1]) == {"top1": 0.0, "top5": 0.0, "videos": 1, "unreadable": 1}


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


def test_predicting_a_file_equals_scoring_it_from_the_store(model, store, samples):
    probabilities = predict_video(model.train(), samples[0].path, TRAINED)
    expected = score_videos(model, samples[:1], store)[0]
    np.testing.assert_allclose(probabilities, expected, rtol=1e-5)


def test_predicting_an_unusable_file_names_it(model, samples):
    with pytest.raises(VideoError, match=r"1\.avi: empty"):
        predict_video(model, samples[1].path, TRAINED)
