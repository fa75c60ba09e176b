"""Plugin ``hv_storvsc``: the synthetic SCSI and IDE controllers, driver and device."""
