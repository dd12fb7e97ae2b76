"""The same few prompts again and again, recorded like any run: does the model answer as before?"""

from __future__ import annotations

import logging
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Final

from cert.evidence.run_record import RunBegin, load_host
from cert.inputs.options import ReadOptions
from cert.inputs.reader import read_cases
from cert.ledger.appender import open_ledger
from cert.ledger.key_source import keys_of
from cert.runner.ledger_run import LedgerRun, describe_inputs, digest_job
from cert.runner.pipeline import RunSettings, run_cases
from cert.runner.tally import Tally
from cert.trajectory.settings import sampling_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from cert.core.config import CERTConfig
    from cert.trajectory.engine import HamiltonianEngine

logger = logging.getLogger(__name__)

COMMAND: Final = "canary"


class Canary:
    """Prompts on a schedule, into a ledger; what comes of them is read from there like all else.

    Args:
        source: File of the prompts, read anew each time.
        folder: The ledger.
        config: Sampling, limits, content, keys.
        engine: Its model is loaded by the first round.
    """

    def __init__(
        self, source: Path, folder: Path, config: CERTConfig, engine: HamiltonianEngine
    ) -> None:
        self._source = str(source)
        self._folder = folder
        self._config = config
        self._engine = engine

    def run(self, stopped: Callable[[], bool]) -> Tally:
        """Run all prompts once; the ledger is open and sealed for this alone.

        Args:
            stopped: Asked between prompts; the run is then recorded as interrupted.

        Returns:
            How they came out.

        Raises:
            CertError: Prompts, model or ledger cannot be used.
        """
        config, engine = self._config, self._engine
        sampling = sampling_of(config)
        identity = engine.model_resource.request_backend().result().identity
        inputs = describe_inputs([self._source])
        run_id, tally = str(uuid.uuid4()), Tally()
        begin = RunBegin(
            command=COMMAND,
            # No other run asks for the same: one that was cut off is not continued.
            job=digest_job(COMMAND, inputs, {"run_id": run_id}),
            inputs=inputs,
            policy=engine.policy,
            content=config.content,
            sampling=sampling,
            limit=None,
            identity=identity,
            host=load_host(),
        )
        settings = RunSettings(
            run_id=run_id,
            sampling=sampling,
            timeout_s=config.timeout,
            chat=config.chat,
            content=config.content,
            correlation_id=f"canary-{run_id}",
            in_flight=config.batch_rows,
        )
        cases = read_cases([self._source], ReadOptions(max_chars=config.max_prompt_chars))
        with closing(open_ledger(self._folder, keys_of(config))) as ledger:
            run = LedgerRun(ledger)
            try:
                run.begin(run_id, begin, correlation_id=settings.correlation_id)
                with closing(run_cases(cases, engine, settings, stopped=stopped)) as outcomes:
                    for outcome in outcomes:
                        run.write(outcome)
                        tally.add(outcome.record)
                if stopped():
                    run.interrupt(tally)
                else:
                    run.end(tally, None)
            finally:
                run.release()
        logger.info("the canary has run", extra={"run_id": run_id, "records": tally.total})
        return tally
