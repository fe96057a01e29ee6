import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from kuber.data.batches import SHIFT, Normalisation, batch_sizes, ordered_batches, training_batches
from kuber.data.samples import Samples

PLAIN = Normalisation((0.0,), (1.0,))


def stored(folder, x):
    """Return samples whose labels are their positions."""
    save_file({"train_x": x, "train_y": np.arange(len(x))}, folder / "a.safetensors")
    return Samples(folder / "a.safetensors", "train")


@pytest.fixture
def images(tmp_path):
    """Thirty 1x6x7 images, each with 42 different pixels, none of them black."""
    draw = np.random.default_rng(0)
    x = np.stack([draw.permutation(np.arange(1, 43)) for _ in range(30)])
    return stored(tmp_path, x.astype(np.uint8).reshape(30, 1, 6, 7))


def epoch(samples, seed=0, **options):
    options = {"batch_size": 8, "normalisation": PLAIN} | options
    return list(training_batches(samples, generator=torch.Generator().manual_seed(seed), **options))


def versions(image):
    """Yield the image after each allowed shift, mirrored and not, as numbers 0 to 1."""
    padded = np.pad(image, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT))) / np.float32(255)
    _, height, width = image.shape
    for down in range(2 * SHIFT + 1):
        for right in range(2 * SHIFT + 1):
            shifted = padded[:, down : down + height, right : right + width]
            yield (down, right, False), shifted
            yield (down, right, True), shifted[..., ::-1]


def moves_of(images, batches):
    """Return the shift and mirroring of each sample in these batches."""
    found = []
    for x, y in batches:
        for sample, label in zip(x.numpy(), y.tolist(), strict=True):
            original = images.images(np.array([label]))[0]
            (move,) = [move for move, version in versions(original) if np.allclose(sample, version)]
            found.append(move)
    return found


def test_every_image_is_shifted_and_mirrored_by_its_own_draw(images):
    found = [move for seed in range(10) for move in moves_of(images, epoch(images, seed))]
    assert len(found) == 300
    assert len({move[:2] for move in found}) == (2 * SHIFT + 1) ** 2
    assert 100 < sum(mirrored for _, _, mirrored in found) < 200


def test_without_flip_nothing_is_mirrored(images):
    assert not any(mirrored for _, _, mirrored in moves_of(images, epoch(images, flip=False)))


def test_an_epoch_holds_every_sample_once_in_an_order_of_the_generator(images):
    orders = [torch.cat([y for _, y in epoch(images, seed)]).tolist() for seed in (0, 0, 1)]
    assert sorted(orders[0]) == list(range(30))
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != sorted(orders[0])


def test_the_same_generator_state_gives_the_same_batches(images):
    for (x, _), (again, _) in zip(epoch(images, 3), epoch(images, 3), strict=True):
        assert torch.equal(x, again)


def test_nothing_is_drawn_from_the_global_generators(images):
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    epoch(images)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


@pytest.mark.parametrize(("batch_size", "lengths"), [(8, [8, 8, 8, 6]), (29, [29]), (30, [30]), (64, [30])])
def test_a_last_batch_of_one_is_left_out(images, batch_size, lengths):
    assert [len(y) for _, y in epoch(images, batch_size=batch_size)] == lengths
    assert batch_sizes(len(images), batch_size=batch_size) == lengths


def test_batches_continue_across_chunks(tmp_path):
    samples = stored(tmp_path, np.zeros((1501, 1, 2, 2), np.uint8))
    batches = epoch(samples, batch_size=300, augment=False)
    assert [len(y) for _, y in batches] == [300] * 5
    assert len(set(torch.cat([y for _, y in batches]).tolist())) == 1500


def test_targets_stay_with_their_samples(images):
    targets = torch.arange(30.0)[:, None] * torch.ones(10)
    for x, y, rows in epoch(images, augment=False, targets=targets):
        assert torch.equal(rows[:, 3], y.float())
        np.testing.assert_allclose(x.numpy() * 255, images.images(y.numpy()), rtol=1e-5)


def test_ordered_batches_are_in_order_and_not_augmented(images):
    batches = list(ordered_batches(images, batch_size=7, normalisation=PLAIN))
    assert [len(y) for _, y in batches] == [7, 7, 7, 7, 2]
    assert torch.cat([y for _, y in batches]).tolist() == list(range(30))
    np.testing.assert_allclose(torch.cat([x for x, _ in batches]).numpy() * 255, images.images(), rtol=1e-5)


def test_normalisation_by_channel(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), dtype=np.uint8)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.25, 2.0)
    ((batch, _),) = ordered_batches(stored(tmp_path, x), batch_size=8, normalisation=Normalisation(mean, std))
    expected = (x / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    np.testing.assert_allclose(batch.numpy(), expected, rtol=1e-4, atol=1e-6)
    assert batch.dtype == torch.float32
    assert batch.is_contiguous(memory_format=torch.channels_last)


def test_vectors_are_neither_shifted_nor_mirrored(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    samples = stored(tmp_path, x)
    normalisation = Normalisation((1.0, 2.0, 3.0, 4.0), (1.0, 2.0, 1.0, 2.0))
    for batch, y in epoch(samples, normalisation=normalisation):
        np.testing.assert_allclose(batch.numpy(), (x[y] - [1, 2, 3, 4]) / [1, 2, 1, 2], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(samples.images(), x)  # the stored samples are unchanged
