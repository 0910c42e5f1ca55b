"""`clarep explore`: a page in the browser, with sliders."""

import os
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from clarep.clarid.clarid_config import ClaridConfig
from clarep.cli.option_groups import ClaridGroup, DataGroup, TeacherGroup, TeacherSpec
from clarep.cli.terminal import note, told
from clarep.data.load import DataConfig, load_data
from clarep.engine.bounds import Within
from clarep.engine.extras import require_extra
from clarep.engine.progress import announce
from clarep.errors import UserError, reason
from clarep.teachers.options import TeacherOptions
from clarep.teachers.zoo import load_teacher


@dataclass(frozen=True)
class Explore:
    """Look at what a teacher takes for a class, in the browser.

    CLARID's options are where the sliders start. Ctrl-C ends it; it leaves nothing behind.
    """

    teacher: TeacherSpec = "backdrops"
    teacher_options: TeacherGroup = field(default_factory=TeacherOptions)
    data: DataGroup = field(default_factory=DataConfig)
    clarid: ClaridGroup = field(default_factory=ClaridConfig)
    canon: Path | None = None
    """Canonical set to browse: a folder that clarep identify wrote, or its canon/."""
    students: tuple[Path, Path] | None = None
    """Two runs of clarep distill, to be seen side by side."""
    host: str = "127.0.0.1"
    """Address to listen at; with 0.0.0.0 whoever reaches this machine can use it."""
    port: Annotated[int, Within(1, 65535)] | None = None
    """Port; by default the first free one from 7860."""

    def run(self) -> None:
        """Serve the page until it is stopped."""
        with tempfile.TemporaryDirectory(prefix="clarep-explore-") as scratch:
            os.environ |= {
                "GRADIO_TEMP_DIR": scratch,
                "GRADIO_ANALYTICS_ENABLED": "False",
                "HF_HUB_DISABLE_TELEMETRY": "1",
                "MPLBACKEND": "agg",  # looking for another, gradio writes a list of fonts
            }
            require_extra("gradio", "explore")
            from clarep.explore.copied import Given
            from clarep.explore.explorer import Explorer
            from clarep.explore.page import Page, serve
            from clarep.explore.student_pair import StudentPair

            teacher = load_teacher(self.teacher, self.teacher_options)
            explorer = Explorer(teacher, told(load_data(self.data)), self.clarid)
            note(explorer.note)
            given = Given(self.teacher, self.teacher_options, self.data, self.clarid)
            pair = None if self.students is None else StudentPair(self.students)
            page = Page(explorer, given, self.canon, pair, Path(scratch))
            try:
                blocks = serve(page, self.host, self.port)
            except OSError as error:
                raise UserError(
                    f"cannot listen at `host={self.host}`, `port={self.port}` ({reason(error)}): "
                    "give another port, or none"
                ) from error
            announce(f"explore: open {blocks.local_url} in a browser; Ctrl-C ends it")
            try:
                threading.Event().wait()
            finally:
                blocks.close(verbose=False)
