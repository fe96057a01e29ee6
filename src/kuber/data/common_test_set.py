"""The task of a data set, its common and its held-out test set."""

from collections.abc import Callable

from kuber.data.datasets import Dataset, load_dataset
from kuber.data.partition import stratified
from kuber.data.samples import Rows, Samples
from kuber.domain.task import Task
from kuber.errors import SettingsError
from kuber.settings import Settings

_FIXED_SEED = 0  # the test set is split in the same way in every run, so that runs can be compared
_LARGE_TEST_SET = 10_000


def load_task(
    settings: Settings, *, verify: bool = False, echo: Callable[[str], None] = lambda _: None
) -> tuple[Dataset, Task, Samples]:
    """Return the data set, its task and the common test set. Raises SettingsError and DatasetError."""
    dataset = load_dataset(
        settings.dataset, data_dir=settings.data_dir, cache_dir=settings.cache_dir, verify=verify, echo=echo
    )
    common = dataset.test.take(split_test_rows(settings, dataset)[0])
    task = Task(name=dataset.name, labels=dataset.labels, input_shape=common.shape, test_set=common.digest())
    return dataset, task, common


def split_test_rows(settings: Settings, dataset: Dataset) -> tuple[Rows, Rows]:
    """Return the rows of the common and of the held-out test set."""
    return stratified(dataset.test.labels, _common_size(settings, dataset), _FIXED_SEED)


def with_effective_sizes(settings: Settings, dataset: Dataset) -> Settings:
    """Return the settings with the train_size and common_test_size that this data set gives.

    A preset's train_size is an upper bound. Raises SettingsError when the user asked for more than there is.
    """
    sizes = {"common_test_size": _common_size(settings, dataset)}
    wanted, available = settings.train_size, len(dataset.train)
    if wanted is not None:
        if wanted > available and not settings.is_from_preset("train_size"):
            raise SettingsError(f"train_size is {wanted}, but {dataset.name} has only {available} training samples.")
        sizes["train_size"] = min(wanted, available)
    return settings.model_copy(update=sizes)


def _common_size(settings: Settings, dataset: Dataset) -> int:
    """Return the size of the common test set; by default a fifth of a test set smaller than 10,000."""
    available = len(dataset.test)
    if "common_test_size" not in settings.model_fields_set and available < _LARGE_TEST_SET:
        return max(available // 5, len(dataset.labels))
    if settings.common_test_size >= available:
        raise SettingsError(
            f"common_test_size is {settings.common_test_size}, but {dataset.name} has only {available} test samples, "
            "and some must be held out; choose a smaller one."
        )
    return settings.common_test_size
