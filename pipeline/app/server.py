"""``lumbar app``: a page on this machine where studies are dropped, graded, and their report appears.

It listens on 127.0.0.1 alone. Other pages that the browser shows cannot use it: the Host header must be this
machine's (against DNS rebinding), requests from other origins are refused, and everything that changes
something needs a token that only the page knows (against request forgery).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse

from data_prep.base.files import is_disk_error, remove_abandoned, temporary_folder
from data_prep.names import input_label
from data_prep.problems import LumbarError, Reason
from data_prep.read.listing import LOOKED_AT_BYTES
from pipeline.app.jobs import Job, Jobs, Refused
from pipeline.grade import Pipeline
from pipeline.quiet import failure_in_words
from pipeline.results.report.pages import render

ADDRESS = "127.0.0.1"
_UPLOADED = "lumbar-app-"
# How long an end waits for uploads under way.
_ENDS_WITHIN_S = 2
TOKEN_HEADER = "x-lumbar-token"
_SAFE_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"cross-origin-resource-policy": b"same-origin",
    b"x-frame-options": b"SAMEORIGIN",
}
_MEDIA_TYPES = {".html": "text/html", ".csv": "text/csv", ".json": "application/json"}

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class LocalOnly:
    """Refuses what does not come from this machine's own page, and adds headers that browsers heed."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}".encode() for name in (ADDRESS, "localhost")}
        self.origins = {b"http://" + host for host in self.hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        begun = False

        async def send_safe(message: MutableMapping[str, Any]) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message["headers"] = [*message["headers"], *_SAFE_HEADERS.items()]
            await send(message)

        if scope["type"] != "http" or not self._is_own(scope):
            response = JSONResponse({"detail": "refused: not from this machine's own page"}, 403)
            await response(scope, receive, send_safe)
            return
        try:
            await self.app(scope, receive, send_safe)
        except asyncio.CancelledError:
            return  # the app ends: nobody waits for the answer
        except Exception as error:  # the server would print what messages and tracebacks quote
            words = failure_in_words(type(error), error.__traceback__)
            logging.getLogger("uvicorn.error").error(words)
            if not begun:
                await JSONResponse({"detail": words}, 500)(scope, receive, send_safe)

    def _is_own(self, scope: Scope) -> bool:
        headers = dict(scope["headers"])
        if headers.get(b"host") not in self.hosts:
            return False
        if headers.get(b"origin", next(iter(self.origins))) not in self.origins:
            return False
        # A link on another page may lead to the start page, and nowhere else.
        own = headers.get(b"sec-fetch-site", b"same-origin") in (b"same-origin", b"none")
        return own or (scope["method"] == "GET" and scope["path"] == "/")


def create_app(jobs: Jobs, port: int) -> FastAPI:
    """The app, for ``http://127.0.0.1:{port}``."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(LocalOnly, port=port)
    token = secrets.token_urlsafe(32)

    def owned(request: Request, identifier: str) -> Job:
        checked(request)
        try:
            return jobs.get(identifier)
        except KeyError:
            raise HTTPException(404, "this job is gone: begin a new one") from None

    def checked(request: Request) -> None:
        if not hmac.compare_digest(request.headers.get(TOKEN_HEADER, "").encode(), token.encode()):
            raise HTTPException(403, "load the page again: it has an old token")

    @app.get("/")
    def page() -> HTMLResponse:
        text = render(
            "app.html", script="app.js", token=token, limits=jobs.limits, learned_from=jobs.learned_from
        )
        return HTMLResponse(text)

    @app.post("/api/jobs")
    def create(request: Request, title: str = "") -> JSONResponse:
        checked(request)
        try:
            return JSONResponse(jobs.create(title).to_dict(), 201)
        except Refused as refused:
            raise HTTPException(429, str(refused)) from None

    @app.put("/api/jobs/{identifier}/files")
    async def upload(
        request: Request, identifier: str, name: str, not_sent: Reason | None = None, size: int = 0
    ) -> JSONResponse:
        job = owned(request, identifier)
        try:
            if not_sent is None:
                await _receive(jobs, job, name, request)
            else:
                jobs.not_sent(job, name, not_sent, await _start_of(request), size)
        except Refused as refused:
            raise HTTPException(413, str(refused)) from None
        except OSError as error:
            if not is_disk_error(error):
                raise
            raise HTTPException(507, f"{error.strerror}: make room on the disk, and try again") from None
        return JSONResponse({"files": job.n_files})

    @app.post("/api/jobs/{identifier}/start")
    def start(request: Request, identifier: str) -> JSONResponse:
        job = owned(request, identifier)
        try:
            jobs.start(job)
        except Refused as refused:
            raise HTTPException(409, str(refused)) from None
        return JSONResponse(job.to_dict())

    @app.get("/api/jobs/{identifier}")
    def state(request: Request, identifier: str) -> JSONResponse:
        return JSONResponse(owned(request, identifier).to_dict())

    @app.delete("/api/jobs/{identifier}")
    def remove(request: Request, identifier: str) -> JSONResponse:
        jobs.remove(owned(request, identifier))
        return JSONResponse({"removed": True})

    @app.get("/jobs/{identifier}/{name:path}")
    def result(identifier: str, name: str) -> FileResponse:
        # No token: a frame cannot send one. The id is the secret, and only listed names are served.
        try:
            job = jobs.get(identifier)
        except KeyError:
            raise HTTPException(404, "this job is gone") from None
        if name not in job.results:
            raise HTTPException(404, "no such file")
        path = job.output / name
        return FileResponse(path, media_type=_MEDIA_TYPES[path.suffix], content_disposition_type="inline")

    return app


async def _receive(jobs: Jobs, job: Job, name: str, request: Request) -> None:
    """Write a file as it arrives, counting; nothing is left of one that is refused or broken off."""
    path = jobs.place_for(job, name)
    if path is None:
        jobs.leave_out(job, name, await _start_of(request))
        return
    if path.exists() or any(parent.is_file() for parent in path.parents):
        raise Refused(f"{input_label(path.name)} was sent twice: begin a new job")
    path.parent.mkdir(parents=True, exist_ok=True)
    written, complete = 0, False
    try:
        with path.open("xb") as file:
            async for chunk in request.stream():
                jobs.count(job, path, written, len(chunk))
                file.write(chunk)
                written += len(chunk)
        complete = True
    finally:
        if not complete:
            path.unlink(missing_ok=True)


async def _start_of(request: Request) -> bytes:
    """The first bytes of a file that is not kept; a browser takes an answer before its end for a failure."""
    start = b""
    async for chunk in request.stream():
        start += chunk[: LOOKED_AT_BYTES - len(start)]
    return start


class PortUnusable(LumbarError):
    """A port that cannot be listened on."""

    advice = "choose another with --port"


def listen(port: int) -> socket.socket:
    """A socket of this machine alone; port 0 takes a free one. Raises PortUnusable."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        # Now, so that a browser that is quicker than the server waits.
        listener.listen()
    except OSError as error:
        listener.close()
        raise PortUnusable(f"port {port} cannot be used ({error.strerror})") from None
    return listener


def serve(
    pipeline: Pipeline, listener: socket.socket, *, log_level: str, ready: Callable[[str], None]
) -> None:
    """Run the app until it is interrupted; everything that was uploaded or written is removed then.

    Args:
        listener: what ``listen`` gave; it is closed in the end.
        ready: called with the address when the page can be opened.
    """
    port = listener.getsockname()[1]
    remove_abandoned(_UPLOADED)
    with temporary_folder(_UPLOADED) as folder:
        jobs = Jobs(pipeline, folder)
        server = uvicorn.Server(
            uvicorn.Config(
                create_app(jobs, port),
                log_level=log_level,
                access_log=False,
                server_header=False,
                lifespan="off",
                timeout_graceful_shutdown=_ENDS_WITHIN_S,
            )
        )
        ready(f"http://{ADDRESS}:{port}/")
        try:
            server.run(sockets=[listener])
        finally:
            jobs.close()
            listener.close()
