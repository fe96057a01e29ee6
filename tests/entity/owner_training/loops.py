"""Owners' training loops, each with an entity or without one."""

import contextlib
import logging
import tempfile
import types
from functools import partial

import torch
from torch import nn
from torch.utils.data import DataLoader

from tests.entity.owner_training.owners import BATCH, CLASSES, EPOCHS, Owner


def plain(owner: Owner, data, entity=None) -> None:
    """Train in a loop of the owner's own."""
    trait, optimizer, scaler = owner.trait, owner.optimizer, owner.scaler
    loader = DataLoader(data, BATCH, shuffle=True)
    mixed = partial(torch.autocast, "cpu", torch.bfloat16, enabled=trait.autocast)
    for epoch in range(EPOCHS):
        if entity is not None:
            with mixed():
                assert not entity.step(optimizer)
        if trait.unfreezes and epoch == EPOCHS // 2:
            owner.unfreeze()
        for place, (x, y) in enumerate(loader):
            with mixed():
                loss = owner.loss(x, y) / trait.accumulate
            scaler.scale(loss).backward()
            if (place + 1) % trait.accumulate:
                continue
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            if owner.scheduler is not None:
                owner.scheduler.step()
    if entity is not None:
        entity.step(optimizer)


class _Batches:
    """Batches that act at the start of epochs, as owners of `fit` must."""

    def __init__(self, owner, data):
        self.owner, self.loader, self.epoch = owner, DataLoader(data, BATCH, shuffle=True), 0

    def __iter__(self):
        if self.owner.trait.unfreezes and self.epoch == EPOCHS // 2:
            self.owner.unfreeze()
        self.epoch += 1
        return iter(self.loader)


def fit(owner: Owner, data, entity=None) -> None:
    """Train with `Entity.fit`, or in a loop as it should be."""
    batches = _Batches(owner, data)
    if owner.scheduler is not None:
        owner.optimizer.register_step_post_hook(lambda *_: owner.scheduler.step())
    if owner.trait.autocast:  # `fit` calls the model itself
        forward = owner.net.forward
        owner.net.forward = torch.autocast("cpu", torch.bfloat16)(forward)
    if entity is not None:
        entity.fit(batches, rounds=EPOCHS, optimizer=owner.optimizer)
        return
    for _ in range(EPOCHS):
        for x, y in batches:
            loss = nn.functional.cross_entropy(owner.model(x).float(), y)
            owner.optimizer.zero_grad()
            loss.backward()
            owner.optimizer.step()


def lightning(owner: Owner, data, entity=None) -> None:
    """Train with a Lightning trainer."""
    import lightning.pytorch as pl

    from kuber.integrations.lightning import KUberCallback

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = owner.model

        def training_step(self, batch, index):
            return owner.loss(*batch)

        def on_train_epoch_start(self):
            if owner.trait.unfreezes and self.current_epoch == EPOCHS // 2:
                owner.unfreeze()

        def configure_optimizers(self):
            if owner.scheduler is None:
                return owner.optimizer
            return [owner.optimizer], [{"scheduler": owner.scheduler, "interval": "step"}]

    trainer = pl.Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        accumulate_grad_batches=owner.trait.accumulate,
        precision="bf16-mixed" if owner.trait.autocast else "32-true",
        callbacks=[] if entity is None else [KUberCallback(entity)],
    )
    trainer.fit(Module(), DataLoader(data, BATCH, shuffle=True))


class TokenClassifier(nn.Module):
    """A Hugging Face classification model around an owner's network: token ids in, loss and logits out."""

    def __init__(self, owner: Owner) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 4)
        self.embed.weight.data.copy_(torch.linspace(-1, 1, 64).reshape(16, 4).sin())
        self.embed.requires_grad_(False)
        self.net = owner.model
        self._owner = [owner]  # not a part of the model
        self.config = types.SimpleNamespace(pad_token_id=0, num_labels=CLASSES)

    def forward(self, input_ids, attention_mask=None, labels=None):
        from transformers.modeling_outputs import SequenceClassifierOutput

        logits = self.net(self.embed(input_ids))
        loss = None if labels is None else self._owner[0].loss_of(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class _Tokens(torch.utils.data.Dataset):
    """An owner's data as token ids."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, place):
        x, y = self.data[place]
        return {"input_ids": tokens(x), "labels": y}


def tokens(x):
    return (x.sum(-1) * 2).round().long().clamp(-7, 7) + 8


def hugging_face(owner: Owner, data, entity=None) -> None:
    """Train with a Hugging Face trainer; an entity's model is `Logits` of a `TokenClassifier` of the owner."""
    import transformers

    from kuber.integrations.transformers import KUberTrainerCallback

    class Unfreezing(transformers.TrainerCallback):
        def on_epoch_begin(self, arguments, state, control, **more):
            if owner.trait.unfreezes and round(state.epoch) == EPOCHS // 2:
                owner.unfreeze()

    trait = owner.trait
    model = TokenClassifier(owner) if entity is None else entity.model.model
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=trait.accumulate,
            bf16=trait.autocast,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=1,
        )
        trainer = transformers.Trainer(
            model=model,
            args=arguments,
            train_dataset=_Tokens(data),
            optimizers=(owner.optimizer, owner.scheduler),
            callbacks=[Unfreezing()] + ([] if entity is None else [KUberTrainerCallback(entity)]),
        )
        with contextlib.redirect_stdout(None):
            trainer.train()


LOOPS = {"plain loop": plain, "fit": fit, "Lightning": lightning, "HF Trainer": hugging_face}
