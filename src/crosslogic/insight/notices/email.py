"""Channels that are e-mail addresses, over an SMTP server of the operator's."""

import aiosmtplib
import msgspec

from crosslogic.insight.notices.model import Channel, Notice
from crosslogic.insight.notices.ports import NotDelivered
from crosslogic.insight.notices.rendering import as_email

DEADLINE_S = 20.0
_PERMANENT = 500  # SMTP's own line between "later perhaps" and "never"


class SmtpServer(msgspec.Struct, frozen=True):
    """Where e-mail is handed in. `start_tls`: None uses it where the server offers it."""

    host: str
    port: int
    sender: str
    username: str | None = None
    password: str | None = None
    tls: bool = False
    start_tls: bool | None = None


class EmailSender:
    """`Sender` for e-mail."""

    def __init__(self, server: SmtpServer) -> None:
        self._server = server

    async def send(self, notice: Notice, channel: Channel) -> None:
        server = self._server
        try:
            await aiosmtplib.send(
                as_email(notice, server.sender, channel.target),
                hostname=server.host,
                port=server.port,
                username=server.username,
                password=server.password,
                use_tls=server.tls,
                start_tls=server.start_tls,
                timeout=DEADLINE_S,
            )
        except aiosmtplib.SMTPResponseException as error:
            # The server's own words may quote addresses of others; its code says enough.
            raise NotDelivered(f"the mail server answered {error.code}", final=error.code >= _PERMANENT) from None
        except aiosmtplib.SMTPRecipientsRefused as error:
            final = all(refused.code >= _PERMANENT for refused in error.recipients)
            raise NotDelivered("the mail server refused the address", final=final) from None
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ValueError) as error:
            raise NotDelivered(f"the mail server cannot be used ({type(error).__name__})") from None


class NoMailServer:
    """`Sender` where no mail server is configured."""

    async def send(self, notice: Notice, channel: Channel) -> None:
        raise NotDelivered("no mail server is configured (notifications.smtp_host)")
