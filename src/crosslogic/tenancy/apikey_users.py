"""`UserManager` over API keys, and over both kinds of token."""

from crosslogic.tenancy.directory import Directory
from crosslogic.tenancy.keys import looks_valid
from crosslogic.tenancy.model import Principal
from crosslogic.tenancy.ports import UserManager

_KEY_START = b"clsk_"


class ApiKeyUsers:
    """Every key is in memory (`sync.py`), so there is nothing to wait for. What is no key is not looked up at all."""

    def __init__(self, directory: Directory) -> None:
        self._look_up = directory.resolve

    def resolve(self, token: bytes) -> Principal | None:
        return self._look_up(token) if looks_valid(token) else None

    async def authenticate(self, token: bytes) -> Principal | None:
        return self.resolve(token)


class EitherUsers:
    """API keys and JSON web tokens, told apart by how they begin: an API key never reaches the other adapter."""

    def __init__(self, keys: UserManager, web_tokens: UserManager) -> None:
        self._keys = keys
        self._web_tokens = web_tokens

    def resolve(self, token: bytes) -> Principal | None:
        return (self._keys if token.startswith(_KEY_START) else self._web_tokens).resolve(token)

    async def authenticate(self, token: bytes) -> Principal | None:
        return await (self._keys if token.startswith(_KEY_START) else self._web_tokens).authenticate(token)
