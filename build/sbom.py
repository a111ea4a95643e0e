"""The software bill of materials: CycloneDX 1.6, JSON, checked against its schema.

The root is Portway; it depends on the forms, which are files with a hash, and each form on what is in it. The
same inputs give the same bytes: the time is the commit's, the serial number is made of the forms' hashes.
"""

import hashlib
import platform
import sys
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseAcknowledgement
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from build.parts import Form, Part

VERSION: Final = SchemaVersion.V1_6

NAMESPACE: Final = uuid.UUID("8f0e3d0a-5a52-5d11-9d5a-6f9c1a5d7b10")
"""Of the serial numbers (UUID version 5)."""

NO_LICENCE: Final = "NOASSERTION"
"""SPDX's word for what nobody has said (SPDX 2.3, 3.13)."""


class InvalidError(Exception):
    """What was written is not what the schema says."""


def render(
    version: str,
    forms: Mapping[Path, frozenset[Form]],
    parts: Iterable[Part],
    licence: Path | None,
    time: datetime,
) -> str:
    """Write it; `forms` are the files and what they hold of `parts`, `licence` is the project's own."""
    listed = list(parts)
    components = {part: _component(part) for part in listed}
    files = {path: _file(path) for path in forms}
    root = _root(version, licence)
    bom = Bom(components=[*components.values(), *files.values()], serial_number=_serial(version, forms))
    bom.metadata = BomMetaData(component=root, timestamp=time)
    bom.register_dependency(root, files.values())
    for path, holds in forms.items():
        bom.register_dependency(files[path], [components[part] for part in listed if part.form in holds])
    text = make_outputter(bom, OutputFormat.JSON, VERSION).output_as_string(indent=1) + "\n"
    check(text)
    return text


def check(text: str) -> None:
    """Hold a document against the official schema."""
    if error := JsonStrictValidator(VERSION).validate_str(text):
        raise InvalidError(f"the SBOM is not CycloneDX {VERSION.to_version()}: {error}")


def _root(version: str, licence: Path | None) -> Component:
    said = DisjunctiveLicense(name=NO_LICENCE if licence is None else licence.name)
    note = "the project names no licence" if licence is None else f"see {licence.name}"
    return Component(
        name="portway",
        version=version,
        type=ComponentType.APPLICATION,
        bom_ref=f"portway@{version}",
        purl=PackageURL("generic", None, "portway", version),
        licenses=[said],
        properties=[Property(name="portway:licence", value=note)],
    )


def _component(part: Part) -> Component:
    """Describe a part; what it put into the folder form as files is within it."""
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=part.sha256)] if part.sha256 else []
    properties = [Property(name="portway:form", value=part.form.value)]
    if part.source[0]:
        properties.append(Property(name="portway:debian-source", value=" ".join(part.source)))
    return Component(
        name=part.name,
        version=part.version,
        type=ComponentType.OPERATING_SYSTEM if part.source[0] == "linux" else ComponentType.LIBRARY,
        bom_ref=f"{part.form}:{part.purl}",
        purl=PackageURL.from_string(part.purl),
        licenses=[_licence(part.licence)],
        hashes=hashes,
        properties=properties,
        components=[
            Component(
                name=name,
                type=ComponentType.FILE,
                bom_ref=f"{part.form}:{name}",
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
            )
            for name, sha256 in part.files
        ],
    )


def _licence(said: str) -> License:
    if not said:
        return DisjunctiveLicense(name=NO_LICENCE)
    return LicenseFactory().make_from_string(said, license_acknowledgement=LicenseAcknowledgement.CONCLUDED)


def _file(path: Path) -> Component:
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return Component(
        name=path.name,
        type=ComponentType.FILE,
        bom_ref=f"file:{path.name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=sha256)],
    )


def _serial(version: str, forms: Iterable[Path]) -> uuid.UUID:
    said = [version, platform.machine(), *(hashlib.sha256(path.read_bytes()).hexdigest() for path in forms)]
    return uuid.uuid5(NAMESPACE, " ".join(said))


def main() -> None:
    """Check the documents that are named."""
    try:
        for name in sys.argv[1:]:
            check(Path(name).read_text())
    except InvalidError as error:
        sys.exit(f"sbom: {error}")


def moment(seconds: int) -> datetime:
    """Give a moment of the Unix clock."""
    return datetime.fromtimestamp(seconds, UTC)


if __name__ == "__main__":
    main()
