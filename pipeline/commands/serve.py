"""``lumbar serve``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from data_prep.base.manifest import DEFAULT_BUNDLE
from pipeline.commands import console
from pipeline.commands.options import (
    ArchiveAuthority,
    ArchiveCertificate,
    ArchiveKey,
    ArchiveToken,
    ChosenModels,
    ClassifierWeights,
    DetectorWeights,
    Models,
    ReportOption,
    archive_at,
    archive_option,
    limit_option,
    node_option,
    result_objects,
    result_option,
    tls_of,
)

MIB, GIB = 1024**2, 1024**3


def serve(
    spool: Annotated[
        Path,
        typer.Argument(
            metavar="SPOOL", help="Folder for images and results on their way; patient data.", file_okay=False
        ),
    ],
    to: Annotated[
        str | None, archive_option(metavar="AETITLE@HOST:PORT", help="The DICOM node that gets the results.")
    ] = None,
    stow: Annotated[
        str | None, archive_option(metavar="URL", help="Or the DICOMweb archive that gets them (STOW-RS).")
    ] = None,
    tls: Annotated[
        bool, archive_option("--tls", help="Encrypt what goes to --to; so does any other --tls-….")
    ] = False,
    tls_ca: ArchiveAuthority = None,
    tls_cert: ArchiveCertificate = None,
    tls_key: ArchiveKey = None,
    token_file: ArchiveToken = None,
    ae_title: Annotated[str, node_option("--ae-title", help="What this node is called.")] = "LUMBAR",
    host: Annotated[str, node_option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, node_option(help="Port to listen on.")] = 11112,
    listen_cert: Annotated[
        Path | None,
        node_option("--listen-cert", help="Listen encrypted, with this certificate (PEM) of the node."),
    ] = None,
    listen_key: Annotated[Path | None, node_option("--listen-key", help="Its key (PEM).")] = None,
    listen_ca: Annotated[
        Path | None, node_option("--listen-ca", help="Callers must show a certificate that these (PEM) sign.")
    ] = None,
    allow: Annotated[
        list[str] | None, node_option(help="AE title that may call; give it again for more. None: any.")
    ] = None,
    settle: Annotated[
        float, limit_option(help="Seconds without a new image after which a study is graded.")
    ] = 30.0,
    associations: Annotated[int, limit_option(help="Associations at one time.")] = 8,
    max_pdu_kib: Annotated[int, limit_option(help="Longest PDU received, KiB.")] = 128,
    max_file_mib: Annotated[int, limit_option(help="Longest image received, MiB.")] = 64,
    max_spool_gib: Annotated[float, limit_option(help="Images in the spool, GiB.")] = 20.0,
    keep_hours: Annotated[
        float,
        limit_option(help="Hours that images of graded studies are kept, for late ones that join them."),
    ] = 24.0,
    retry: Annotated[
        float, limit_option(help="Seconds before a failed delivery is first tried again.")
    ] = 5.0,
    sr: ReportOption = "3d",
    sc: Annotated[bool, result_option(help="Send the picture as a secondary capture.")] = True,
    gsps: Annotated[bool, result_option("--gsps", help="Send a presentation state per series.")] = False,
    kos: Annotated[
        bool, result_option("--kos", help="Send a key object selection of Moderate and Severe.")
    ] = False,
    models: Models = DEFAULT_BUNDLE.value,
    detector_weights: DetectorWeights = None,
    classifier_weights: ClassifierWeights = None,
) -> None:
    """A DICOM node: grades studies that are sent to it, and sends SR and SC back.

    Serves until SIGTERM. What was received and what was not delivered yet
    survives a restart.
    """
    from pipeline.service.config import Peer, ServiceConfig

    if bool(to) == bool(stow):
        raise typer.BadParameter("give the destination with --to or with --stow, and not both")
    if to and token_file is not None:
        raise typer.BadParameter("--token-file is for --stow: a DICOM node knows no token")
    if stow and tls:
        raise typer.BadParameter("--tls is for --to: the address of --stow says https")
    chosen = ChosenModels.of(models, detector_weights, classifier_weights)
    try:
        config = ServiceConfig(
            spool=spool,
            destination=archive_at(stow, tls_ca, tls_cert, tls_key, token_file)
            if stow
            else Peer.parse(to or "", tls_of(tls_ca, tls_cert, tls_key, is_asked=tls)),
            ae_title=ae_title,
            host=host,
            port=port,
            tls=tls_of(listen_ca, listen_cert, listen_key, is_asked=False),
            allowed_callers=tuple(allow or ()),
            quiet_s=settle,
            max_associations=associations,
            max_pdu_bytes=max_pdu_kib * 1024,
            max_file_bytes=max_file_mib * MIB,
            max_spool_bytes=int(max_spool_gib * GIB),
            keep_s=keep_hours * 3600,
            retry_s=retry,
            max_retry_s=max(300.0, retry),
            objects=result_objects(sr, sc=sc, gsps=gsps, kos=kos),
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None

    from pipeline.commands.grading_steps import load_pipeline
    from pipeline.service.run import serve as serve_until_told
    from pipeline.service.run import set_up_log
    from pipeline.service.spool import Spool

    set_up_log()
    held = Spool(spool, max_bytes=config.max_spool_bytes)
    try:
        serve_until_told(config, lambda: load_pipeline(chosen), held)
    except OSError as error:
        console.fail(
            f"cannot listen on {host}:{port} ({error.strerror or type(error).__name__})\n"
            "what to do: end what listens there, or choose another --port or --host"
        )
    finally:
        held.close()
