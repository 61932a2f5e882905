"""Every night: what came since the last becomes the next version."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.build_dataset import build, ended
from flows.engine import once
from tasks.ingest import list_source
from tasks.job import dataset_of
from tasks.stages import check, find_unchanged, start_run
from vlmdata.config import BuildConfig
from vlmdata.errors import VlmdataError
from vlmdata.layout import Stage
from vlmdata.lease import leased


@flow(name="nightly-ingest", flow_run_name="nightly-{config.dataset}")
def nightly_ingest(config: BuildConfig) -> Any:
    """Ingest the drop, filter, caption and check it, export it, and publish the next version of the dataset.

    The drop is all that the source has and the last version has not, so a night
    that was missed is made up for by the next. Ends as `build_dataset` does, or
    `NothingNew`; failed with `HeldByOther` while another night is under way, and
    with `Overtaken` if another run published meanwhile.

    Args:
        config: The build: source, store, rules, models, export.
    """
    try:
        once(check, config, Stage.FINAL)
        with leased(dataset_of(config), f"flow run {flow_run.name or 'nightly-ingest'}"):
            listing = once(list_source, config)
            unchanged: dict[str, Any] | None = once(find_unchanged, config, listing)
            if unchanged is not None:
                return Completed(name="NothingNew", message=unchanged["message"], data=unchanged)
            return ended(build(once(start_run, config), listing, Stage.FINAL))
    except VlmdataError as error:
        return Failed(name=type(error).__name__, message=str(error))
