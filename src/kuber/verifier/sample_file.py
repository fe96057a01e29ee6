"""Samples of the operator for one task, in a file."""

from pathlib import Path

from kuber.data.batches import Normalisation
from kuber.data.class_names import match_classes
from kuber.data.common_test_set import load_task
from kuber.data.datasets import BUILT_IN, load_dataset
from kuber.domain.digest import Digest
from kuber.domain.task import Task
from kuber.errors import DatasetError, IncompatibleKnowledgeError, SettingsError
from kuber.settings import Settings
from kuber.verifier.sandboxed_evaluation import VerificationSet

MAX_TASKS = 16  # of one name, whose sets are kept


class SampleFile:
    """Samples for the records on tasks of one name, whatever their common test set."""

    def __init__(self, name: str, path: Path, settings: Settings) -> None:
        """Read the file. Raises DatasetError when it is not an .npz file with x and y."""
        self.task_name = name
        self._path = path
        self._dataset = load_dataset(str(path), cache_dir=settings.cache_dir)
        self._defined = load_task(settings.model_copy(update={"dataset": str(path)}))
        self._sets: dict[Task, VerificationSet] = {}

    @property
    def task_test_set(self) -> Digest | None:
        """Common test set of the records: any."""
        return None

    def for_task(self, task: Task) -> VerificationSet:
        """Return the samples to verify records on this task with.

        They are the common test set if this file defines the task; otherwise all samples of the file, normalised as
        those of the built-in data set of that name, or as they are. Raises IncompatibleKnowledgeError when they do
        not fit.
        """
        found = self._sets.get(task)
        if found is None:
            found = self._make(task)
            self._sets = {task: found} if len(self._sets) >= MAX_TASKS else {**self._sets, task: found}
        return found

    def _make(self, task: Task) -> VerificationSet:
        dataset, defined, common = self._defined
        if (defined.test_set, defined.labels, defined.input_shape) == (task.test_set, task.labels, task.input_shape):
            normalisation = Normalisation(dataset.mean, dataset.std)
            return VerificationSet(task=task, samples=common, test_set=common.digest(), normalisation=normalisation)
        samples = self._dataset.train
        if samples.shape != task.input_shape:
            ours, theirs = ("x".join(map(str, shape)) or "()" for shape in (samples.shape, task.input_shape))
            raise IncompatibleKnowledgeError(
                f"The hub's samples for this task have shape {ours}; those of the record's task have {theirs}."
            )
        try:
            samples = samples.relabelled(match_classes(self._dataset.labels, task.labels, source=self._path.name))
        except (DatasetError, SettingsError) as error:
            raise IncompatibleKnowledgeError(
                f"The hub's samples do not fit the labels of this task: {error.message}"
            ) from None
        built_in = BUILT_IN.get(task.name)
        normalisation = Normalisation(built_in.mean, built_in.std) if built_in else Normalisation((0.0,), (1.0,))
        return VerificationSet(task=task, samples=samples, test_set=samples.digest(), normalisation=normalisation)


def read_sample_files(options: list[str], settings: Settings) -> list[SampleFile]:
    """Return the sample files of options TASK=FILE. Raises SettingsError and DatasetError."""
    files: dict[str, SampleFile] = {}
    for option in options:
        name, separator, path = option.partition("=")
        if not (name and separator and path):
            raise SettingsError(f"--samples takes TASK=FILE, such as --samples digits=secret.npz, not {option!r}.")
        if not path.endswith(".npz"):
            raise SettingsError(f"--samples takes an .npz file with x and y, not {path!r}.")
        if name in files:
            raise SettingsError(f"--samples names the task {name!r} twice; put its samples into one file.")
        files[name] = SampleFile(name, Path(path), settings)
    return list(files.values())
