"""Prints the measurement of a dumped launch plan, as sev-snp-measure computes it."""

import json
import pathlib
import sys

from sevsnpmeasure.gctx import GCTX

folder = pathlib.Path(sys.argv[1])
digest = GCTX()
for entry in json.loads((folder / "manifest.json").read_text()):
    gpa, kind = entry["gpa"], entry["kind"]
    data = (folder / entry["file"]).read_bytes()
    assert len(data) == entry["len"]
    if kind == "normal":
        digest.update_normal_pages(gpa, data)
    elif kind == "zero":
        digest.update_zero_pages(gpa, len(data))
    elif kind == "unmeasured":
        digest.update_unmeasured_pages(gpa, len(data))
    elif kind == "secrets":
        digest.update_secrets_page(gpa)
    elif kind == "cpuid":
        digest.update_cpuid_page(gpa)
    elif kind == "vmsa":
        assert gpa == digest.VMSA_GPA
        digest.update_vmsa_page(data)
    else:
        sys.exit(f"unknown kind {kind}")
print(digest.hex_ld())
