"""Faults of the fake cloud, in the suite's words."""

from dataclasses import dataclass
from typing import Final

from gridtide.clouds.fake import CloudCall, CloudFault, FakeCloud
from gridtide.errors import AuthenticationFailed, CloudError, NoCapacity, QuotaExceeded, Throttled
from gridtide.testing.cloud_bench import Boundary, Fault, Step

_CALLS: Final = {Step.LIST: CloudCall.MACHINES, Step.LAUNCH: CloudCall.LAUNCH, Step.TERMINATE: CloudCall.TERMINATE}
_FAULTS: Final = {
    Fault.THROTTLE: CloudFault.RAISE,
    Fault.UNREACHABLE: CloudFault.RAISE,
    Fault.HANG: CloudFault.HANG,
    Fault.SILENCE: CloudFault.HANG_AFTER,
    Fault.DROP: CloudFault.ANSWER_LOST,
    Fault.CREDENTIALS: CloudFault.RAISE,
    Fault.CAPACITY: CloudFault.REFUSE,
    Fault.QUOTA: CloudFault.REFUSE,
}
_ERRORS: Final[dict[Fault, CloudError]] = {
    Fault.THROTTLE: Throttled("slow down", retry_after=5.0),
    Fault.CREDENTIALS: AuthenticationFailed("not any more"),
    Fault.CAPACITY: NoCapacity("sold out"),
    Fault.QUOTA: QuotaExceeded("used up", scope="cores"),
}


@dataclass
class FakeBoundary(Boundary):
    """Beyond it is the fake itself."""

    cloud: FakeCloud
    lag: float

    def cannot(self, fault: Fault, step: Step | None) -> str:
        return ""

    async def begin(self, fault: Fault, step: Step | None, times: int | None) -> None:
        call = None if step is None else _CALLS[step]
        if fault is Fault.LAG:
            self.cloud.list_lag = 3600.0
        elif fault is Fault.CUT:
            kind = CloudFault.TRUNCATED if step is Step.LIST else CloudFault.ITEM_LOST
            self.cloud.faults.inject(kind, call=call, times=times)
        else:
            self.cloud.faults.inject(_FAULTS[fault], call=call, times=times, error=_ERRORS.get(fault))

    async def end(self) -> None:
        self.cloud.list_lag = self.lag
        self.cloud.faults.clear()
