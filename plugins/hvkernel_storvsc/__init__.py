"""Plugin ``hv_storvsc``: the synthetic SCSI and IDE controllers, driver and device."""

from typing import Final

HVKERNEL_CONTRACT: Final = "1.0"
