"""A client of Prefect's API: of the server that ``PREFECT_API_URL`` names, of the one that ``automl serve`` runs here,
or of none.

Without a server its code runs in this process, on the same database: that takes 4 s where a server takes 15.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import PrefectException

from pipeline.errors import StoreError

UNREACHABLE = (httpx.HTTPError, PrefectException)
"""What a client raises whose server is gone or refuses."""


@asynccontextmanager
async def prefect_client() -> AsyncIterator[PrefectClient]:
    """A client of the API. `flows.environment.configure` has found the server, if there is one.

    Raises:
        StoreError: the server cannot be reached.
    """
    if "PREFECT_API_URL" in os.environ:
        try:
            async with PrefectClient(os.environ["PREFECT_API_URL"]) as client:
                yield client
        except httpx.TransportError as error:
            raise StoreError(
                f"Prefect's server at {os.environ['PREFECT_API_URL']} cannot be reached ({error}); start it, or unset "
                "PREFECT_API_URL"
            ) from None
        return
    from prefect.server.api.server import create_app

    async with PrefectClient(create_app(ephemeral=True)) as client:
        yield client
