"""Settings of what people are told: how notices leave this site, and what nodes cost ([notices](notices.md))."""

from typing import Annotated

from pydantic import Field, SecretStr, model_validator

from crosslogic.settings.values import Port, Real, Section, Truth


class SmtpSettings(Section):
    """The mail server that e-mail is handed to."""

    host: str | None = Field(default=None, description="Its name; absent: no e-mail is sent.")
    port: Port = Field(default=587, description="Its port.")
    sender: str = Field(default="", description="Address that e-mail comes from.")
    username: str | None = Field(default=None, description="Name to sign in with.")
    password: SecretStr | None = Field(default=None, description="Password to sign in with.")
    tls: Truth = Field(default=False, description="TLS from the first byte, as at port 465.")
    start_tls: Truth | None = Field(default=None, description="Absent: where it is offered; true: or not at all.")

    @model_validator(mode="after")
    def _has_a_sender(self) -> "SmtpSettings":
        if self.host is not None and not self.sender:
            raise ValueError("sender is missing; write the address that e-mail comes from")
        return self


class NotificationSettings(Section):
    """How notices are sent."""

    smtp: SmtpSettings = SmtpSettings()
    private_targets: Truth = Field(
        default=False, description="Webhooks may go to http:// and to private addresses: for sites of one owner."
    )


class FinopsSettings(Section):
    """What nodes cost, where they do not say it themselves ([FinOps](finops.md))."""

    usd_per_gpu_hour: dict[str, Annotated[Real, Field(ge=0, le=10_000)]] = Field(
        default={}, description="By name of the GPU, such as `H100: 2.50`; spot nodes that tell their price keep it."
    )
