"""Who calls, as the request path asks it: the documents' `UserManager`.

The documents give it five methods. Here the one that every request needs stands alone, and answers from memory;
looking at and changing users and their quotas is `accounts.UserService`. Adapters: `apikey_users.py`,
`jwt_users.py`.
"""

from typing import Protocol

from crosslogic.tenancy.model import Principal


class UserManager(Protocol):
    def resolve(self, token: bytes) -> Principal | None:
        """Whoever presents this token, from memory; None for nobody.

        The caller asks `scope_check.comes_from_elsewhere`, looks at `refusal`, compares `expires_at_s` with its clock,
        and asks `scope_check.refusal_of`.
        """
        ...

    async def authenticate(self, token: bytes) -> Principal | None:
        """As `resolve`, but may wait for something to be fetched: bounded in time and in how often."""
        ...
