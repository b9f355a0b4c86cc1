"""The description of the API, as a server gives it."""

import pytest
import requests


@pytest.fixture(scope="session")
def document(server):
    response = requests.get(server.url + "/openapi.json", timeout=10)
    assert response.status_code == 200
    return response.json()
