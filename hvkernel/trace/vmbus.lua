-- Wireshark dissector for the pcapng files of hvkernel: channel messages, ring packets, device protocols.
--
--   tshark -X lua_script:vmbus.lua -r boot.pcapng
--
-- or put this file into Wireshark's personal plugin folder. Fields are called vmbus.<struct>.<member> after the
-- kernel's structs, without their prefix "vmbus_channel_" or "vmbus_". Part of hvkernel, MIT licence.
--
-- The tables are generated from hvkernel's wire classes: hvkernel decode --dissector.

-- tables: begin
local NAMES, FLAGS, STRUCTS = {}, {}, {}
NAMES["VmbusChannelOfferUPipe.pipe_mode"] = {
  [0x0] = "VMBUS_PIPE_TYPE_BYTE",
  [0x4] = "VMBUS_PIPE_TYPE_MESSAGE",
}
NAMES["vmbus_channel_gpadl_created.creation_status"] = {
  [0x0] = "STATUS_SUCCESS",
  [0xc0000001] = "STATUS_UNSUCCESSFUL",
}
NAMES["vmbus_channel_message_header.msgtype"] = {
  [0x0] = "CHANNELMSG_INVALID",
  [0x1] = "CHANNELMSG_OFFERCHANNEL",
  [0x2] = "CHANNELMSG_RESCIND_CHANNELOFFER",
  [0x3] = "CHANNELMSG_REQUESTOFFERS",
  [0x4] = "CHANNELMSG_ALLOFFERS_DELIVERED",
  [0x5] = "CHANNELMSG_OPENCHANNEL",
  [0x6] = "CHANNELMSG_OPENCHANNEL_RESULT",
  [0x7] = "CHANNELMSG_CLOSECHANNEL",
  [0x8] = "CHANNELMSG_GPADL_HEADER",
  [0x9] = "CHANNELMSG_GPADL_BODY",
  [0xa] = "CHANNELMSG_GPADL_CREATED",
  [0xb] = "CHANNELMSG_GPADL_TEARDOWN",
  [0xc] = "CHANNELMSG_GPADL_TORNDOWN",
  [0xd] = "CHANNELMSG_RELID_RELEASED",
  [0xe] = "CHANNELMSG_INITIATE_CONTACT",
  [0xf] = "CHANNELMSG_VERSION_RESPONSE",
  [0x10] = "CHANNELMSG_UNLOAD",
  [0x11] = "CHANNELMSG_UNLOAD_RESPONSE",
  [0x12] = "CHANNELMSG_18",
  [0x13] = "CHANNELMSG_19",
  [0x14] = "CHANNELMSG_20",
  [0x15] = "CHANNELMSG_TL_CONNECT_REQUEST",
  [0x16] = "CHANNELMSG_MODIFYCHANNEL",
  [0x17] = "CHANNELMSG_TL_CONNECT_RESULT",
  [0x18] = "CHANNELMSG_MODIFYCHANNEL_RESPONSE",
  [0x19] = "CHANNELMSG_COUNT",
}
NAMES["vmbus_channel_modifychannel_response.status"] = {
  [0x0] = "STATUS_SUCCESS",
  [0xc0000001] = "STATUS_UNSUCCESSFUL",
}
FLAGS["vmbus_channel_offer.chn_flags"] = {
  [0x1] = "VMBUS_CHANNEL_ENUMERATE_DEVICE_INTERFACE",
  [0x2] = "VMBUS_CHANNEL_SERVER_SUPPORTS_TRANSFER_PAGES",
  [0x4] = "VMBUS_CHANNEL_SERVER_SUPPORTS_GPADLS",
  [0x10] = "VMBUS_CHANNEL_NAMED_PIPE_MODE",
  [0x100] = "VMBUS_CHANNEL_LOOPBACK_OFFER",
  [0x200] = "VMBUS_CHANNEL_PARENT_OFFER",
  [0x400] = "VMBUS_CHANNEL_REQUEST_MONITORED_NOTIFICATION",
  [0x2000] = "VMBUS_CHANNEL_TLNPI_PROVIDER_OFFER",
}
NAMES["vmbus_channel_offer_channel.monitor_allocated"] = {
  [0x0] = "no",
  [0x1] = "yes",
}
NAMES["vmbus_channel_offer_channel.is_dedicated_interrupt"] = {
  [0x0] = "no",
  [0x1] = "yes",
}
NAMES["vmbus_channel_open_result.status"] = {
  [0x0] = "STATUS_SUCCESS",
  [0xc0000001] = "STATUS_UNSUCCESSFUL",
}
NAMES["vmbus_channel_version_response.version_supported"] = {
  [0x0] = "no",
  [0x1] = "yes",
}
NAMES["vmpacket_descriptor.type"] = {
  [0x0] = "VM_PKT_INVALID",
  [0x1] = "VM_PKT_SYNCH",
  [0x2] = "VM_PKT_ADD_XFER_PAGESET",
  [0x3] = "VM_PKT_RM_XFER_PAGESET",
  [0x4] = "VM_PKT_ESTABLISH_GPADL",
  [0x5] = "VM_PKT_TEARDOWN_GPADL",
  [0x6] = "VM_PKT_DATA_INBAND",
  [0x7] = "VM_PKT_DATA_USING_XFER_PAGES",
  [0x8] = "VM_PKT_DATA_USING_GPADL",
  [0x9] = "VM_PKT_DATA_USING_GPA_DIRECT",
  [0xa] = "VM_PKT_CANCEL_REQUEST",
  [0xb] = "VM_PKT_COMP",
  [0xc] = "VM_PKT_DATA_USING_ADDITIONAL_PKT",
  [0xd] = "VM_PKT_ADDITIONAL_DATA",
}
FLAGS["vmpacket_descriptor.flags"] = {
  [0x1] = "VMBUS_DATA_PACKET_FLAG_COMPLETION_REQUESTED",
}
NAMES["vmscsi_request.srb_status"] = {
  [0x0] = "-",
  [0x1] = "SRB_STATUS_SUCCESS",
  [0x2] = "SRB_STATUS_ABORTED",
  [0x4] = "SRB_STATUS_ERROR",
  [0x6] = "SRB_STATUS_INVALID_REQUEST",
  [0x12] = "SRB_STATUS_DATA_OVERRUN",
  [0x20] = "SRB_STATUS_INVALID_LUN",
  [0x41] = "SRB_STATUS_SUCCESS | SRB_STATUS_QUEUE_FROZEN",
  [0x42] = "SRB_STATUS_ABORTED | SRB_STATUS_QUEUE_FROZEN",
  [0x44] = "SRB_STATUS_ERROR | SRB_STATUS_QUEUE_FROZEN",
  [0x46] = "SRB_STATUS_INVALID_REQUEST | SRB_STATUS_QUEUE_FROZEN",
  [0x52] = "SRB_STATUS_DATA_OVERRUN | SRB_STATUS_QUEUE_FROZEN",
  [0x60] = "SRB_STATUS_INVALID_LUN | SRB_STATUS_QUEUE_FROZEN",
  [0x81] = "SRB_STATUS_SUCCESS | SRB_STATUS_AUTOSENSE_VALID",
  [0x82] = "SRB_STATUS_ABORTED | SRB_STATUS_AUTOSENSE_VALID",
  [0x84] = "SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID",
  [0x86] = "SRB_STATUS_INVALID_REQUEST | SRB_STATUS_AUTOSENSE_VALID",
  [0x92] = "SRB_STATUS_DATA_OVERRUN | SRB_STATUS_AUTOSENSE_VALID",
  [0xa0] = "SRB_STATUS_INVALID_LUN | SRB_STATUS_AUTOSENSE_VALID",
  [0xc1] = "SRB_STATUS_SUCCESS | SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN",
  [0xc2] = "SRB_STATUS_ABORTED | SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN",
  [0xc4] = "SRB_STATUS_ERROR | SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN",
  [0xc6] = "SRB_STATUS_INVALID_REQUEST | SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN",
  [0xd2] = "SRB_STATUS_DATA_OVERRUN | SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN",
  [0xe0] = "SRB_STATUS_INVALID_LUN | SRB_STATUS_AUTOSENSE_VALID | SRB_STATUS_QUEUE_FROZEN",
}
NAMES["vmscsi_request.data_in"] = {
  [0x0] = "WRITE_TYPE",
  [0x1] = "READ_TYPE",
  [0x2] = "UNKNOWN_TYPE",
}
FLAGS["vmscsi_request.srb_flags"] = {
  [0x2] = "SRB_FLAGS_QUEUE_ACTION_ENABLE",
  [0x4] = "SRB_FLAGS_DISABLE_DISCONNECT",
  [0x8] = "SRB_FLAGS_DISABLE_SYNCH_TRANSFER",
  [0x10] = "SRB_FLAGS_BYPASS_FROZEN_QUEUE",
  [0x20] = "SRB_FLAGS_DISABLE_AUTOSENSE",
  [0x40] = "SRB_FLAGS_DATA_IN",
  [0x80] = "SRB_FLAGS_DATA_OUT",
  [0x100] = "SRB_FLAGS_NO_QUEUE_FREEZE",
  [0x200] = "SRB_FLAGS_ADAPTER_CACHE_ENABLE",
  [0x400] = "SRB_FLAGS_FREE_SENSE_BUFFER",
  [0x800] = "SRB_FLAGS_D3_PROCESSING",
  [0x10000] = "SRB_FLAGS_IS_ACTIVE",
  [0x20000] = "SRB_FLAGS_ALLOCATED_FROM_ZONE",
  [0x40000] = "SRB_FLAGS_SGLIST_FROM_POOL",
  [0x80000] = "SRB_FLAGS_BYPASS_LOCKED_QUEUE",
  [0x100000] = "SRB_FLAGS_NO_KEEP_AWAKE",
  [0x200000] = "SRB_FLAGS_PORT_DRIVER_ALLOCSENSE",
  [0x400000] = "SRB_FLAGS_PORT_DRIVER_SENSEHASPORT",
  [0x800000] = "SRB_FLAGS_DONT_START_NEXT_PACKET",
}
FLAGS["vmstorage_channel_properties.flags"] = {
  [0x1] = "STORAGE_CHANNEL_SUPPORTS_MULTI_CHANNEL",
}
NAMES["vmtransfer_page_packet_header.sender_owns_set"] = {
  [0x0] = "no",
  [0x1] = "yes",
}
NAMES["vstor_packet.operation"] = {
  [0x1] = "VSTOR_OPERATION_COMPLETE_IO",
  [0x2] = "VSTOR_OPERATION_REMOVE_DEVICE",
  [0x3] = "VSTOR_OPERATION_EXECUTE_SRB",
  [0x4] = "VSTOR_OPERATION_RESET_LUN",
  [0x5] = "VSTOR_OPERATION_RESET_ADAPTER",
  [0x6] = "VSTOR_OPERATION_RESET_BUS",
  [0x7] = "VSTOR_OPERATION_BEGIN_INITIALIZATION",
  [0x8] = "VSTOR_OPERATION_END_INITIALIZATION",
  [0x9] = "VSTOR_OPERATION_QUERY_PROTOCOL_VERSION",
  [0xa] = "VSTOR_OPERATION_QUERY_PROPERTIES",
  [0xb] = "VSTOR_OPERATION_ENUMERATE_BUS",
  [0xc] = "VSTOR_OPERATION_FCHBA_DATA",
  [0xd] = "VSTOR_OPERATION_CREATE_SUB_CHANNELS",
}
FLAGS["vstor_packet.flags"] = {
  [0x1] = "REQUEST_COMPLETION_FLAG",
}
STRUCTS["VmbusChannelOfferU"] = { size = 120, fields = {
  { name = "std", offset = 0, size = 120, kind = "wire", struct = "VmbusChannelOfferUStd" },
  { name = "pipe", offset = 0, size = 120, kind = "wire", struct = "VmbusChannelOfferUPipe" },
} }
STRUCTS["VmbusChannelOfferUPipe"] = { size = 120, fields = {
  { name = "pipe_mode", offset = 0, size = 4, kind = "int", names = "VmbusChannelOfferUPipe.pipe_mode", closed = true },
  { name = "user_def", offset = 4, size = 116, kind = "bytes" },
} }
STRUCTS["VmbusChannelOfferUStd"] = { size = 120, fields = {
  { name = "user_def", offset = 0, size = 120, kind = "bytes" },
} }
STRUCTS["gpa_range"] = { size = 8, fields = {
  { name = "byte_count", offset = 0, size = 4, kind = "int", form = "decimal" },
  { name = "byte_offset", offset = 4, size = 4, kind = "int", form = "decimal" },
} }
STRUCTS["hv_fc_wwn_packet"] = { size = 36, fields = {
  { name = "primary_active", offset = 0, size = 1, kind = "int" },
  { name = "reserved1", offset = 1, size = 3, kind = "bytes" },
  { name = "primary_port_wwn", offset = 4, size = 8, kind = "bytes" },
  { name = "primary_node_wwn", offset = 12, size = 8, kind = "bytes" },
  { name = "secondary_port_wwn", offset = 20, size = 8, kind = "bytes" },
  { name = "secondary_node_wwn", offset = 28, size = 8, kind = "bytes" },
} }
STRUCTS["hvkernel_pcap_header"] = { size = 48, fields = {
  { name = "version", offset = 0, size = 1, kind = "int" },
  { name = "kind", offset = 1, size = 1, kind = "int" },
  { name = "to_host", offset = 2, size = 1, kind = "int" },
  { name = "size", offset = 3, size = 1, kind = "int" },
  { name = "vp", offset = 4, size = 4, kind = "int" },
  { name = "relid", offset = 8, size = 4, kind = "int" },
  { name = "vmbus_version", offset = 12, size = 4, kind = "int", form = "version" },
  { name = "if_type", offset = 16, size = 16, kind = "guid" },
  { name = "if_instance", offset = 32, size = 16, kind = "guid" },
} }
STRUCTS["vmadd_remove_transfer_page_set"] = { size = 24, fields = {
  { name = "d", offset = 0, size = 16, kind = "wire", struct = "vmpacket_descriptor" },
  { name = "gpadl", offset = 16, size = 4, kind = "int" },
  { name = "xfer_pageset_id", offset = 20, size = 2, kind = "int" },
  { name = "reserved", offset = 22, size = 2, kind = "int" },
} }
STRUCTS["vmadditional_data"] = { size = 33, fields = {
  { name = "d", offset = 0, size = 16, kind = "wire", struct = "vmpacket_descriptor" },
  { name = "total_bytes", offset = 16, size = 8, kind = "int" },
  { name = "offset", offset = 24, size = 4, kind = "int" },
  { name = "byte_cnt", offset = 28, size = 4, kind = "int" },
  { name = "data", offset = 32, size = 1, kind = "bytes" },
} }
STRUCTS["vmbus_channel_close_channel"] = { size = 12, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
} }
STRUCTS["vmbus_channel_gpadl_body"] = { size = 16, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "msgnumber", offset = 8, size = 4, kind = "int", form = "decimal" },
  { name = "gpadl", offset = 12, size = 4, kind = "int" },
} }
STRUCTS["vmbus_channel_gpadl_created"] = { size = 20, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
  { name = "gpadl", offset = 12, size = 4, kind = "int" },
  { name = "creation_status", offset = 16, size = 4, kind = "int", names = "vmbus_channel_gpadl_created.creation_status" },
} }
STRUCTS["vmbus_channel_gpadl_header"] = { size = 20, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
  { name = "gpadl", offset = 12, size = 4, kind = "int" },
  { name = "range_buflen", offset = 16, size = 2, kind = "int", form = "decimal" },
  { name = "rangecount", offset = 18, size = 2, kind = "int", form = "decimal" },
} }
STRUCTS["vmbus_channel_gpadl_teardown"] = { size = 16, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
  { name = "gpadl", offset = 12, size = 4, kind = "int" },
} }
STRUCTS["vmbus_channel_gpadl_torndown"] = { size = 12, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "gpadl", offset = 8, size = 4, kind = "int" },
} }
STRUCTS["vmbus_channel_initiate_contact"] = { size = 40, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "vmbus_version_requested", offset = 8, size = 4, kind = "int", form = "version" },
  { name = "target_vcpu", offset = 12, size = 4, kind = "int", form = "decimal" },
  { name = "interrupt_page", offset = 16, size = 8, kind = "int" },
  { name = "monitor_page1", offset = 24, size = 8, kind = "int" },
  { name = "monitor_page2", offset = 32, size = 8, kind = "int" },
  { name = "msg_sint", offset = 16, size = 1, kind = "int", form = "decimal" },
  { name = "padding1", offset = 17, size = 3, kind = "bytes" },
  { name = "padding2", offset = 20, size = 4, kind = "int" },
}, choices = {
  { selector = "vmbus_version_requested", test = "from", value = 0x50000, values = { [0x50000] = true }, yes = { "msg_sint", "padding1", "padding2" }, no = { "interrupt_page" } },
} }
STRUCTS["vmbus_channel_message_header"] = { size = 8, fields = {
  { name = "msgtype", offset = 0, size = 4, kind = "int", names = "vmbus_channel_message_header.msgtype", closed = true },
  { name = "padding", offset = 4, size = 4, kind = "int" },
} }
STRUCTS["vmbus_channel_modifychannel"] = { size = 16, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
  { name = "target_vp", offset = 12, size = 4, kind = "int", form = "decimal" },
} }
STRUCTS["vmbus_channel_modifychannel_response"] = { size = 16, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
  { name = "status", offset = 12, size = 4, kind = "int", names = "vmbus_channel_modifychannel_response.status" },
} }
STRUCTS["vmbus_channel_offer"] = { size = 176, fields = {
  { name = "if_type", offset = 0, size = 16, kind = "guid" },
  { name = "if_instance", offset = 16, size = 16, kind = "guid" },
  { name = "reserved1", offset = 32, size = 8, kind = "int" },
  { name = "reserved2", offset = 40, size = 8, kind = "int" },
  { name = "chn_flags", offset = 48, size = 2, kind = "int", flags = "vmbus_channel_offer.chn_flags" },
  { name = "mmio_megabytes", offset = 50, size = 2, kind = "int", form = "decimal" },
  { name = "u", offset = 52, size = 120, kind = "wire", struct = "VmbusChannelOfferU" },
  { name = "sub_channel_index", offset = 172, size = 2, kind = "int", form = "decimal" },
  { name = "reserved3", offset = 174, size = 2, kind = "int" },
}, choices = {
  { selector = "chn_flags", test = "bits", value = 0x10, values = { [0x10] = true }, yes = { "u.pipe" }, no = { "u.std" } },
} }
STRUCTS["vmbus_channel_offer_channel"] = { size = 196, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "offer", offset = 8, size = 176, kind = "wire", struct = "vmbus_channel_offer" },
  { name = "child_relid", offset = 184, size = 4, kind = "int", form = "decimal" },
  { name = "monitorid", offset = 188, size = 1, kind = "int" },
  { name = "monitor_allocated", offset = 189, size = 1, kind = "bits", shift = 0, bits = 1, names = "vmbus_channel_offer_channel.monitor_allocated" },
  { name = "reserved", offset = 189, size = 1, kind = "bits", shift = 1, bits = 7 },
  { name = "is_dedicated_interrupt", offset = 190, size = 2, kind = "bits", shift = 0, bits = 1, names = "vmbus_channel_offer_channel.is_dedicated_interrupt" },
  { name = "reserved1", offset = 190, size = 2, kind = "bits", shift = 1, bits = 15 },
  { name = "connection_id", offset = 192, size = 4, kind = "int" },
} }
STRUCTS["vmbus_channel_open_channel"] = { size = 148, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
  { name = "openid", offset = 12, size = 4, kind = "int", form = "decimal" },
  { name = "ringbuffer_gpadlhandle", offset = 16, size = 4, kind = "int" },
  { name = "target_vp", offset = 20, size = 4, kind = "int", form = "decimal" },
  { name = "downstream_ringbuffer_pageoffset", offset = 24, size = 4, kind = "int", form = "decimal" },
  { name = "userdata", offset = 28, size = 120, kind = "bytes" },
} }
STRUCTS["vmbus_channel_open_result"] = { size = 20, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
  { name = "openid", offset = 12, size = 4, kind = "int", form = "decimal" },
  { name = "status", offset = 16, size = 4, kind = "int", names = "vmbus_channel_open_result.status" },
} }
STRUCTS["vmbus_channel_relid_released"] = { size = 12, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
} }
STRUCTS["vmbus_channel_rescind_offer"] = { size = 12, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "child_relid", offset = 8, size = 4, kind = "int", form = "decimal" },
} }
STRUCTS["vmbus_channel_tl_connect_request"] = { size = 40, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "guest_endpoint_id", offset = 8, size = 16, kind = "guid" },
  { name = "host_service_id", offset = 24, size = 16, kind = "guid" },
} }
STRUCTS["vmbus_channel_version_response"] = { size = 16, fields = {
  { name = "header", offset = 0, size = 8, kind = "wire", struct = "vmbus_channel_message_header" },
  { name = "version_supported", offset = 8, size = 1, kind = "int", names = "vmbus_channel_version_response.version_supported" },
  { name = "connection_state", offset = 9, size = 1, kind = "int" },
  { name = "padding", offset = 10, size = 2, kind = "int" },
  { name = "msg_conn_id", offset = 12, size = 4, kind = "int" },
} }
STRUCTS["vmdata_gpa_direct"] = { size = 32, fields = {
  { name = "d", offset = 0, size = 16, kind = "wire", struct = "vmpacket_descriptor" },
  { name = "reserved", offset = 16, size = 4, kind = "int" },
  { name = "range_cnt", offset = 20, size = 4, kind = "int", form = "decimal" },
  { name = "range", offset = 24, size = 8, kind = "wires", count = 1, struct = "gpa_range" },
} }
STRUCTS["vmestablish_gpadl"] = { size = 32, fields = {
  { name = "d", offset = 0, size = 16, kind = "wire", struct = "vmpacket_descriptor" },
  { name = "gpadl", offset = 16, size = 4, kind = "int" },
  { name = "range_cnt", offset = 20, size = 4, kind = "int", form = "decimal" },
  { name = "range", offset = 24, size = 8, kind = "wires", count = 1, struct = "gpa_range" },
} }
STRUCTS["vmgpadl_packet_header"] = { size = 24, fields = {
  { name = "d", offset = 0, size = 16, kind = "wire", struct = "vmpacket_descriptor" },
  { name = "gpadl", offset = 16, size = 4, kind = "int" },
  { name = "reserved", offset = 20, size = 4, kind = "int" },
} }
STRUCTS["vmpacket_descriptor"] = { size = 16, fields = {
  { name = "type", offset = 0, size = 2, kind = "int", names = "vmpacket_descriptor.type", closed = true },
  { name = "offset8", offset = 2, size = 2, kind = "int", form = "units8" },
  { name = "len8", offset = 4, size = 2, kind = "int", form = "units8" },
  { name = "flags", offset = 6, size = 2, kind = "int", flags = "vmpacket_descriptor.flags" },
  { name = "trans_id", offset = 8, size = 8, kind = "int" },
} }
STRUCTS["vmscsi_request"] = { size = 52, fields = {
  { name = "length", offset = 0, size = 2, kind = "int", form = "decimal" },
  { name = "srb_status", offset = 2, size = 1, kind = "int", names = "vmscsi_request.srb_status" },
  { name = "scsi_status", offset = 3, size = 1, kind = "int" },
  { name = "port_number", offset = 4, size = 1, kind = "int" },
  { name = "path_id", offset = 5, size = 1, kind = "int" },
  { name = "target_id", offset = 6, size = 1, kind = "int" },
  { name = "lun", offset = 7, size = 1, kind = "int" },
  { name = "cdb_length", offset = 8, size = 1, kind = "int", form = "decimal" },
  { name = "sense_info_length", offset = 9, size = 1, kind = "int", form = "decimal" },
  { name = "data_in", offset = 10, size = 1, kind = "int", names = "vmscsi_request.data_in", closed = true },
  { name = "reserved", offset = 11, size = 1, kind = "int" },
  { name = "data_transfer_length", offset = 12, size = 4, kind = "int", form = "decimal" },
  { name = "sense_data", offset = 16, size = 20, kind = "bytes" },
  { name = "reserve", offset = 36, size = 2, kind = "int" },
  { name = "queue_tag", offset = 38, size = 1, kind = "int" },
  { name = "queue_action", offset = 39, size = 1, kind = "int" },
  { name = "srb_flags", offset = 40, size = 4, kind = "int", flags = "vmscsi_request.srb_flags" },
  { name = "time_out_value", offset = 44, size = 4, kind = "int", form = "decimal" },
  { name = "queue_sort_ey", offset = 48, size = 4, kind = "int" },
  { name = "cdb", offset = 16, size = 16, kind = "bytes" },
  { name = "reserved_array", offset = 16, size = 20, kind = "bytes" },
}, choices = {
  { selector = "@to_host", test = "in", value = 0x1, values = { [0x1] = true }, yes = { "cdb" }, no = { "sense_data", "reserved_array" } },
  { selector = "@to_host", test = "in", value = 0x0, values = { [0x0] = true }, yes = {  }, no = { "reserved_array" } },
} }
STRUCTS["vmstorage_channel_properties"] = { size = 24, fields = {
  { name = "reserved", offset = 0, size = 4, kind = "int" },
  { name = "max_channel_cnt", offset = 4, size = 2, kind = "int", form = "decimal" },
  { name = "reserved1", offset = 6, size = 2, kind = "int" },
  { name = "flags", offset = 8, size = 4, kind = "int", flags = "vmstorage_channel_properties.flags" },
  { name = "max_transfer_bytes", offset = 12, size = 4, kind = "int", form = "decimal" },
  { name = "reserved2", offset = 16, size = 8, kind = "int" },
} }
STRUCTS["vmstorage_protocol_version"] = { size = 4, fields = {
  { name = "major_minor", offset = 0, size = 2, kind = "int", form = "version8" },
  { name = "revision", offset = 2, size = 2, kind = "int" },
} }
STRUCTS["vmteardown_gpadl"] = { size = 24, fields = {
  { name = "d", offset = 0, size = 16, kind = "wire", struct = "vmpacket_descriptor" },
  { name = "gpadl", offset = 16, size = 4, kind = "int" },
  { name = "reserved", offset = 20, size = 4, kind = "int" },
} }
STRUCTS["vmtransfer_page_packet_header"] = { size = 32, fields = {
  { name = "d", offset = 0, size = 16, kind = "wire", struct = "vmpacket_descriptor" },
  { name = "xfer_pageset_id", offset = 16, size = 2, kind = "int" },
  { name = "sender_owns_set", offset = 18, size = 1, kind = "int", names = "vmtransfer_page_packet_header.sender_owns_set" },
  { name = "reserved", offset = 19, size = 1, kind = "int" },
  { name = "range_cnt", offset = 20, size = 4, kind = "int", form = "decimal" },
  { name = "ranges", offset = 24, size = 8, kind = "wires", count = 1, struct = "vmtransfer_page_range" },
} }
STRUCTS["vmtransfer_page_range"] = { size = 8, fields = {
  { name = "byte_count", offset = 0, size = 4, kind = "int", form = "decimal" },
  { name = "byte_offset", offset = 4, size = 4, kind = "int", form = "decimal" },
} }
STRUCTS["vstor_packet"] = { size = 64, fields = {
  { name = "operation", offset = 0, size = 4, kind = "int", names = "vstor_packet.operation", closed = true },
  { name = "flags", offset = 4, size = 4, kind = "int", flags = "vstor_packet.flags" },
  { name = "status", offset = 8, size = 4, kind = "int" },
  { name = "vm_srb", offset = 12, size = 52, kind = "wire", struct = "vmscsi_request" },
  { name = "storage_channel_properties", offset = 12, size = 24, kind = "wire", struct = "vmstorage_channel_properties" },
  { name = "version", offset = 12, size = 4, kind = "wire", struct = "vmstorage_protocol_version" },
  { name = "wwn_packet", offset = 12, size = 36, kind = "wire", struct = "hv_fc_wwn_packet" },
  { name = "sub_channel_count", offset = 12, size = 2, kind = "int", form = "decimal" },
  { name = "buffer", offset = 12, size = 52, kind = "bytes" },
}, choices = {
  { selector = "operation", test = "in", value = 0x3, values = { [0x3] = true }, yes = { "vm_srb" }, no = {  } },
  { selector = "operation", test = "in", value = 0xa, values = { [0xa] = true }, yes = { "storage_channel_properties" }, no = {  } },
  { selector = "operation", test = "in", value = 0x9, values = { [0x9] = true }, yes = { "version" }, no = {  } },
  { selector = "operation", test = "in", value = 0xc, values = { [0xc] = true }, yes = { "wwn_packet" }, no = {  } },
  { selector = "operation", test = "in", value = 0xd, values = { [0xd] = true }, yes = { "sub_channel_count" }, no = {  } },
  { selector = "operation", test = "in", value = 0x3, values = { [0x3] = true, [0xa] = true, [0x9] = true, [0xc] = true, [0xd] = true }, yes = {  }, no = { "buffer" } },
} }
local MESSAGES = {
  [1] = { name = "CHANNELMSG_OFFERCHANNEL", struct = "vmbus_channel_offer_channel", to_host = false, since = 0xd },
  [2] = { name = "CHANNELMSG_RESCIND_CHANNELOFFER", struct = "vmbus_channel_rescind_offer", to_host = false, since = 0xd },
  [3] = { name = "CHANNELMSG_REQUESTOFFERS", struct = "vmbus_channel_message_header", to_host = true, since = 0xd },
  [4] = { name = "CHANNELMSG_ALLOFFERS_DELIVERED", struct = "vmbus_channel_message_header", to_host = false, since = 0xd },
  [5] = { name = "CHANNELMSG_OPENCHANNEL", struct = "vmbus_channel_open_channel", to_host = true, since = 0xd },
  [6] = { name = "CHANNELMSG_OPENCHANNEL_RESULT", struct = "vmbus_channel_open_result", to_host = false, since = 0xd },
  [7] = { name = "CHANNELMSG_CLOSECHANNEL", struct = "vmbus_channel_close_channel", to_host = true, since = 0xd },
  [8] = { name = "CHANNELMSG_GPADL_HEADER", struct = "vmbus_channel_gpadl_header", to_host = true, since = 0xd },
  [9] = { name = "CHANNELMSG_GPADL_BODY", struct = "vmbus_channel_gpadl_body", to_host = true, since = 0xd },
  [10] = { name = "CHANNELMSG_GPADL_CREATED", struct = "vmbus_channel_gpadl_created", to_host = false, since = 0xd },
  [11] = { name = "CHANNELMSG_GPADL_TEARDOWN", struct = "vmbus_channel_gpadl_teardown", to_host = true, since = 0xd },
  [12] = { name = "CHANNELMSG_GPADL_TORNDOWN", struct = "vmbus_channel_gpadl_torndown", to_host = false, since = 0xd },
  [13] = { name = "CHANNELMSG_RELID_RELEASED", struct = "vmbus_channel_relid_released", to_host = true, since = 0xd },
  [14] = { name = "CHANNELMSG_INITIATE_CONTACT", struct = "vmbus_channel_initiate_contact", to_host = true, since = 0xd },
  [15] = { name = "CHANNELMSG_VERSION_RESPONSE", struct = "vmbus_channel_version_response", to_host = false, since = 0xd },
  [16] = { name = "CHANNELMSG_UNLOAD", struct = "vmbus_channel_message_header", to_host = true, since = 0x30000 },
  [17] = { name = "CHANNELMSG_UNLOAD_RESPONSE", struct = "vmbus_channel_message_header", to_host = false, since = 0x30000 },
  [21] = { name = "CHANNELMSG_TL_CONNECT_REQUEST", struct = "vmbus_channel_tl_connect_request", to_host = true, since = 0x40000 },
  [22] = { name = "CHANNELMSG_MODIFYCHANNEL", struct = "vmbus_channel_modifychannel", to_host = true, since = 0x40001 },
  [23] = { name = "CHANNELMSG_TL_CONNECT_RESULT", struct = "vmbus_channel_message_header", to_host = false, since = 0x40000 },
  [24] = { name = "CHANNELMSG_MODIFYCHANNEL_RESPONSE", struct = "vmbus_channel_modifychannel_response", to_host = false, since = 0x50003 },
}
local GUIDS = {
  ["635161f83edfc546913ff2d2f965ed0e"] = "HV_NIC_GUID",
  ["32264132cb86a2449b5c50d1417354f5"] = "HV_IDE_GUID",
  ["d96361baa104294db60572e2ffb1dc7f"] = "HV_SCSI_GUID",
  ["31600b0e13523449818b38d90ced39db"] = "HV_SHUTDOWN_GUID",
  ["30e62795aed07b49adcee80ab0175caf"] = "HV_TS_GUID",
  ["394f16571591784eab55382f3bd5422d"] = "HV_HEART_BEAT_GUID",
  ["e7f4a0a9455a964db8278a841e8c03e6"] = "HV_KVP_GUID",
  ["dc7450528589e2468057a307dc18a502"] = "HV_DM_GUID",
  ["9eb6a8cf4a5bc04cb98b8ba1a1f3f95a"] = "HV_MOUSE_GUID",
  ["6dad12f9172bea48bd65f927a61c7684"] = "HV_KBD_GUID",
  ["292efa3523ea364296ae3a6ebacba440"] = "HV_VSS_GUID",
  ["02780ada77e3ac4a8e770558eb1073f8"] = "HV_SYNTHVID_GUID",
  ["4acc9b2f6900f34ab76b6fd0be528cda"] = "HV_SYNTHFC_GUID",
  ["e34bd134e4dec8419ae76b174977c192"] = "HV_FCOPY_GUID",
  ["3daf2e8ca732094bab99bd1f1c86b501"] = "HV_ND_GUID",
  ["1df6c444444400449d52802e27ede19f"] = "HV_PCIE_GUID",
  ["1657e6f8b33c064a9a601889c5cccab5"] = "HV_AVMA1_GUID",
  ["f4ba7533159e304bb76567acb10d607b"] = "HV_AVMA2_GUID",
  ["f4ac6a2715ac6c4298dd7521ad3f01fe"] = "HV_RDV_GUID",
  ["c3c176c376d2d24890a9c04748072c60"] = "HV_IMC_GUID",
  ["00000000cbfae611bd5864006a7986d3"] = "srv_id_template",
}
local PAYLOADS = {
  ["d96361baa104294db60572e2ffb1dc7f"] = { name = "storvsc", struct = "vstor_packet", selector = "operation", repeats = { [1] = true }, may_end_early = false },
  ["32264132cb86a2449b5c50d1417354f5"] = { name = "storvsc", struct = "vstor_packet", selector = "operation", repeats = { [1] = true }, may_end_early = false },
  ["4acc9b2f6900f34ab76b6fd0be528cda"] = { name = "storvsc", struct = "vstor_packet", selector = "operation", repeats = { [1] = true }, may_end_early = false },
}
-- tables: end

local vmbus = Proto("vmbus", "Hyper-V VMBus")

local KIND_MESSAGE, KIND_PACKET = 0, 1
local HEADER = "hvkernel_pcap_header"
local COMPLETION, GPA_DIRECT, XFER_PAGES = 11, 9, 7
local PAGE = 4096

-- Wire structs of the packet types whose head is more than the descriptor and that need no code of their own.
local PACKET_HEADS = {
  [2] = "vmadd_remove_transfer_page_set",
  [3] = "vmadd_remove_transfer_page_set",
  [4] = "vmestablish_gpadl",
  [5] = "vmteardown_gpadl",
  [8] = "vmgpadl_packet_header",
  [13] = "vmadditional_data",
}

-- Which message answers which, and where both say of what: offset of the number, nil when there is one at a time.
local ANSWERS = {
  [4] = { of = 3 },
  [6] = { of = 5, at = 8, asked_at = 8 },
  [10] = { of = 8, at = 12, asked_at = 12 },
  [12] = { of = 11, at = 8, asked_at = 12 },
  [15] = { of = 14 },
  [17] = { of = 16 },
  [24] = { of = 22, at = 8, asked_at = 8 },
}
local ASKED_AT = {}
for _, answer in pairs(ANSWERS) do
  ASKED_AT[answer.of] = answer.asked_at or 0
end

-- fields ------------------------------------------------------------------------------------------------------

local fields = {}
local F = {
  relid = ProtoField.uint32("vmbus.relid", "Channel (relid)"),
  device = ProtoField.string("vmbus.device", "Device"),
  offered_in = ProtoField.framenum("vmbus.offered_in", "Offered in", base.NONE, frametype.NONE),
  request_in = ProtoField.framenum("vmbus.request_in", "Request in", base.NONE, frametype.REQUEST),
  response_in = ProtoField.framenum("vmbus.response_in", "Response in", base.NONE, frametype.RESPONSE),
  time = ProtoField.relative_time("vmbus.time", "Time since request"),
  trans_id = ProtoField.uint64("vmbus.trans_id", "Transaction", base.HEX),
  message = ProtoField.none("vmbus.message", "Channel message"),
  packet = ProtoField.none("vmbus.packet", "Ring packet"),
  payload = ProtoField.bytes("vmbus.payload", "Payload"),
  rest = ProtoField.bytes("vmbus.rest", "Not explained"),
  pfn = ProtoField.uint64("vmbus.pfn", "Page (4 KiB)", base.HEX),
}
for _, field in pairs(F) do
  fields[#fields + 1] = field
end

local function short(tag)
  return (tag:gsub("^vmbus_channel_", ""):gsub("^vmbus_", ""))
end

local function number_field(abbr, label, field, size, mask)
  local make = ProtoField["uint" .. size * 8]
  local decimal = field.form == "decimal" or field.form == "units8"
  local shown = decimal and base.DEC or base.HEX
  local strings = field.names and NAMES[field.names] or nil
  return mask and make(abbr, label, shown, strings, mask) or make(abbr, label, shown, strings)
end

for tag, struct in pairs(STRUCTS) do
  for _, field in ipairs(struct.fields) do
    local abbr = "vmbus." .. short(tag) .. "." .. field.name
    local label = field.name
    if field.kind == "int" then
      field.proto = number_field(abbr, label, field, field.size)
    elseif field.kind == "bits" then
      field.mask = math.floor((2 ^ field.bits - 1) * 2 ^ field.shift)
      field.proto = number_field(abbr, label, field, field.size, field.mask)
    elseif field.kind == "ints" then
      field.proto = number_field(abbr, label, field, math.floor(field.size / field.count))
    elseif field.kind == "guid" then
      field.proto = ProtoField.guid(abbr, label)
    elseif field.kind == "bytes" then
      field.proto = ProtoField.bytes(abbr, label)
    else
      field.proto = ProtoField.none(abbr, label)
    end
    fields[#fields + 1] = field.proto
    if field.flags then
      field.bit_protos = {}
      for mask, name in pairs(FLAGS[field.flags]) do
        local bit = ProtoField.bool(abbr .. "." .. name:lower(), name, field.size * 8, nil, mask)
        field.bit_protos[#field.bit_protos + 1] = { mask = mask, proto = bit }
        fields[#fields + 1] = bit
      end
      table.sort(field.bit_protos, function(a, b) return a.mask < b.mask end)
    end
  end
end
vmbus.fields = fields

local E = {
  malformed = ProtoExpert.new("vmbus.malformed", "Malformed", expert.group.MALFORMED, expert.severity.ERROR),
  unknown = ProtoExpert.new("vmbus.unknown", "Unknown value", expert.group.PROTOCOL, expert.severity.WARN),
  reserved = ProtoExpert.new("vmbus.reserved", "Reserved, not zero", expert.group.PROTOCOL, expert.severity.NOTE),
  cut = ProtoExpert.new("vmbus.cut", "Not captured whole", expert.group.UNDECODED, expert.severity.NOTE),
}
vmbus.experts = { E.malformed, E.unknown, E.reserved, E.cut }

-- what earlier frames said ------------------------------------------------------------------------------------

local offers, pending, frames

function vmbus.init()
  offers, pending, frames = {}, {}, {}
end

local function remember(pinfo)
  frames[pinfo.number] = frames[pinfo.number] or {}
  return frames[pinfo.number]
end

local function ask(pinfo, key, selector)
  if not pinfo.visited then
    pending[key] = { frame = pinfo.number, time = pinfo.rel_ts, selector = selector }
  end
end

local function answer(pinfo, key)
  if not pinfo.visited then
    local request = pending[key]
    if request then
      pending[key] = nil
      remember(pinfo).request = request
      frames[request.frame] = frames[request.frame] or {}
      frames[request.frame].response = pinfo.number
    end
  end
  return remember(pinfo).request
end

local function show_links(pinfo, tree)
  local known = frames[pinfo.number]
  if not known then
    return
  end
  if known.request then
    tree:add(F.request_in, known.request.frame):set_generated()
    local took = pinfo.rel_ts - known.request.time
    local seconds = math.floor(took)
    tree:add(F.time, NSTime.new(seconds, math.floor((took - seconds) * 1e9 + 0.5))):set_generated()
  end
  if known.response then
    tree:add(F.response_in, known.response):set_generated()
  end
end

-- structs -----------------------------------------------------------------------------------------------------

local function hex(range)
  return tostring(range:bytes()):lower()
end

local function plain(range)
  -- Numbers up to 32 bits; of wider ones only whether they are zero matters here.
  if range:len() == 8 then
    local value = range:le_uint64()
    return value == UInt64(0) and 0 or 1
  elseif range:len() == 3 or range:len() > 4 then
    return hex(range):find("[1-9a-f]") and 1 or 0
  end
  return range:le_uint()
end

local function field_value(tvb, offset, struct, name, limit)
  for _, field in ipairs(struct.fields) do
    if field.name == name and field.size <= 4 and offset + field.offset + field.size <= (limit or tvb:len()) then
      return tvb(offset + field.offset, field.size):le_uint()
    end
  end
  return nil
end

local function hidden_members(tvb, offset, struct, context)
  local hidden = {}
  for _, rule in ipairs(struct.choices or {}) do
    local value
    if rule.selector == "@to_host" then
      value = context.to_host and 1 or 0
    else
      value = context.selectors[rule.selector] or field_value(tvb, offset, struct, rule.selector)
    end
    local holds = false
    if value ~= nil then
      if rule.test == "in" then
        holds = rule.values[value] or false
      elseif rule.test == "from" then
        holds = value >= rule.value
      else
        holds = bit.band(value, rule.value) == rule.value
      end
    end
    for _, name in ipairs(holds and rule.no or rule.yes) do
      hidden[name] = true
    end
  end
  return hidden
end

local add_struct

local function add_number(tree, field, range, context)
  local item = tree:add_le(field.proto, range)
  if range:len() > 4 then
    return item
  end
  local value = range:le_uint()
  if field.kind == "bits" then
    value = math.floor(value / 2 ^ field.shift) % 2 ^ field.bits
  end
  if field.form == "version" then
    item:append_text(string.format(" (%d.%d)", math.floor(value / 65536), value % 65536))
  elseif field.form == "version8" then
    item:append_text(string.format(" (%d.%d)", math.floor(value / 256), value % 256))
  elseif field.form == "units8" then
    item:append_text(string.format(" (%d bytes)", value * 8))
  elseif field.flags then
    local known = 0
    for _, flag in ipairs(field.bit_protos) do
      item:add_le(flag.proto, range)
      known = bit.bor(known, flag.mask)
    end
    if bit.band(value, bit.bnot(known)) ~= 0 then
      item:add_proto_expert_info(E.unknown, "Flags without a name")
    end
  elseif field.closed and NAMES[field.names][value] == nil then
    item:add_proto_expert_info(E.unknown, string.format("%s %#x has no meaning", field.name, value))
  end
  return item
end

local function add_field(tree, tvb, at, field, context, hidden)
  local range = tvb(at, field.size)
  local item
  if field.kind == "int" or field.kind == "bits" then
    item = add_number(tree, field, range, context)
  elseif field.kind == "ints" then
    local size = math.floor(field.size / field.count)
    for i = 0, field.count - 1 do
      tree:add_le(field.proto, tvb(at + i * size, size))
    end
  elseif field.kind == "guid" then
    item = tree:add_le(field.proto, range)
    local name = GUIDS[hex(range)]
    if name then
      item:append_text(" (" .. name .. ")")
    end
  elseif field.kind == "bytes" then
    item = tree:add(field.proto, range)
  elseif field.kind == "wire" then
    add_struct(tree:add(field.proto, range), tvb, at, at + field.size, field.struct, context, hidden)
  elseif field.kind == "wires" then
    local size = math.floor(field.size / field.count)
    for i = 0, field.count - 1 do
      local element = tree:add(field.proto, tvb(at + i * size, size))
      add_struct(element, tvb, at + i * size, at + (i + 1) * size, field.struct, context)
    end
  end
  if item and (field.name:find("^reserve") or field.name:find("^padding")) then
    local value = plain(range)
    if field.kind == "bits" then
      value = math.floor(value / 2 ^ field.shift) % 2 ^ field.bits
    end
    if value ~= 0 then
      item:add_proto_expert_info(E.reserved)
    end
  end
end

-- Show a struct that begins at offset, as far as it lies before limit; true when it is whole.
function add_struct(tree, tvb, offset, limit, tag, context, outer_hidden)
  local struct = STRUCTS[tag]
  local hidden = hidden_members(tvb, offset, struct, context)
  for name in pairs(outer_hidden or {}) do
    hidden[name] = true
  end
  for _, field in ipairs(struct.fields) do
    if not hidden[field.name] then
      if offset + field.offset + field.size > limit then
        if context.whole then
          tree:add_proto_expert_info(
            E.malformed, string.format("%s ends after %d of %d bytes", tag, limit - offset, struct.size))
        end
        return false
      end
      local inner = {}
      for name in pairs(hidden) do
        local prefix, rest = name:match("^([^.]+)%.(.+)$")
        if prefix == field.name then
          inner[rest] = true
        end
      end
      add_field(tree, tvb, offset + field.offset, field, context, inner)
    end
  end
  return true
end

-- Show some members of a struct whose bytes are all there.
local function add_members(tree, tvb, offset, tag, wanted, context)
  for _, field in ipairs(STRUCTS[tag].fields) do
    if wanted[field.name] then
      add_field(tree, tvb, offset + field.offset, field, context)
    end
  end
end

local function add_rest(tree, tvb, offset, limit)
  if offset < limit then
    tree:add(F.rest, tvb(offset, limit - offset))
  end
end

-- GPA ranges from offset to limit, at most count of them; returns where they end, nil when they do not fit.
local function add_ranges(tree, tvb, offset, limit, count, context, may_go_on)
  for _ = 1, count do
    if offset + 8 > limit then
      if may_go_on and offset == limit then
        return offset
      end
      tree:add_proto_expert_info(E.malformed, "GPA ranges do not fit")
      return nil
    end
    local bytes, first = tvb(offset, 4):le_uint(), tvb(offset + 4, 4):le_uint()
    local pages = math.floor((first % PAGE + bytes + PAGE - 1) / PAGE)
    local there = math.min(pages, math.floor((limit - offset - 8) / 8))
    local range = tree:add(tvb(offset, 8 + there * 8), string.format("GPA range: %d bytes, %d pages", bytes, pages))
    add_struct(range, tvb, offset, limit, "gpa_range", context)
    if first >= PAGE then
      range:add_proto_expert_info(E.malformed, "byte_offset is not in the first page")
    end
    for i = 0, there - 1 do
      range:add_le(F.pfn, tvb(offset + 8 + i * 8, 8))
    end
    offset = offset + 8 + there * 8
    if there < pages then
      if not may_go_on then
        range:add_proto_expert_info(E.malformed, string.format("%d of %d page numbers are there", there, pages))
        return nil
      end
      range:append_text(string.format(", %d in bodies", pages - there))
      return offset
    end
  end
  return offset
end

-- channel messages --------------------------------------------------------------------------------------------

local function show_offer(pinfo, tree, relid)
  local known = remember(pinfo)
  if not pinfo.visited then
    known.offer = offers[relid]
  end
  local offer = known.offer
  if offer then
    tree:add(F.device, offer.name):set_generated()
    tree:add(F.offered_in, offer.frame):set_generated()
    return offer.name
  end
  return nil
end

local function guid_text(range)
  local a, b, c, d, e, f, g, h, rest, tail = hex(range):match("^(..)(..)(..)(..)(..)(..)(..)(..)(....)(.*)$")
  return d .. c .. b .. a .. "-" .. f .. e .. "-" .. h .. g .. "-" .. rest .. "-" .. tail
end

local function device_name(class, instance, sub)
  local name = GUIDS[hex(class)] or guid_text(class)
  return name .. " " .. guid_text(instance) .. (sub > 0 and (" sub-channel " .. sub) or "")
end

local function dissect_message(tvb, pinfo, tree, offset, context)
  local limit = tvb:len()
  if limit - offset < 8 then
    tree:add_proto_expert_info(E.malformed, "a channel message has a header of 8 bytes")
    add_rest(tree, tvb, offset, limit)
    return "short message"
  end
  local number = tvb(offset, 4):le_uint()
  local row = MESSAGES[number]
  if not row then
    add_struct(tree, tvb, offset, limit, "vmbus_channel_message_header", context)
    add_rest(tree, tvb, offset + 8, limit)
    return string.format("message type %d", number)
  end
  local info = row.name:gsub("^CHANNELMSG_", "")
  local struct = STRUCTS[row.struct]
  local whole = add_struct(tree, tvb, offset, limit, row.struct, context)
  if row.to_host ~= context.to_host then
    tree:add_proto_expert_info(E.malformed, row.name .. " goes the other way")
  end
  local after = offset + struct.size
  if whole and number == 8 then
    local count = tvb(offset + 18, 2):le_uint()
    after = add_ranges(tree, tvb, after, limit, count, context, true) or limit
  elseif whole and number == 9 then
    while after + 8 <= limit do
      tree:add_le(F.pfn, tvb(after, 8))
      after = after + 8
    end
  end
  if whole then
    add_rest(tree, tvb, after, limit)
  end
  local relid = field_value(tvb, offset, struct, "child_relid")
  if whole and number == 1 and not pinfo.visited then
    local name = device_name(tvb(offset + 8, 16), tvb(offset + 24, 16), tvb(offset + 180, 2):le_uint())
    offers[relid] = { frame = pinfo.number, name = name }
  end
  if relid then
    tree:add(F.relid, relid):set_generated()
    info = info .. " relid " .. relid
    local name = show_offer(pinfo, tree, relid)
    if name then
      info = info .. " (" .. name .. ")"
    end
  end
  local function subject(at)
    return at and at > 0 and offset + at + 4 <= limit and tvb(offset + at, 4):le_uint() or 0
  end
  if ASKED_AT[number] then
    ask(pinfo, "message " .. number .. " " .. subject(ASKED_AT[number]))
  elseif ANSWERS[number] then
    answer(pinfo, "message " .. ANSWERS[number].of .. " " .. subject(ANSWERS[number].at))
  end
  show_links(pinfo, tree)
  return info
end

-- ring packets ------------------------------------------------------------------------------------------------

local function dissect_payload(tvb, pinfo, tree, offset, limit, class, context, request)
  local row = PAYLOADS[class]
  if limit == offset then
    return nil, nil
  end
  if not row then
    tree:add(F.payload, tvb(offset, limit - offset))
    return nil, nil
  end
  local struct = STRUCTS[row.struct]
  local selector = field_value(tvb, offset, struct, row.selector, limit)
  local shown = selector
  if request and selector and row.repeats[selector] and request.selector then
    shown = request.selector
  end
  local inner = { to_host = context.to_host, whole = context.whole and not row.may_end_early,
                  selectors = { [row.selector] = shown } }
  local size = math.min(struct.size, limit - offset)
  local branch = tree:add(tvb(offset, size), "Payload: " .. row.name .. " " .. row.struct)
  if add_struct(branch, tvb, offset, limit, row.struct, inner) then
    add_rest(tree, tvb, offset + struct.size, limit)
  end
  for _, field in ipairs(struct.fields) do
    if field.name == row.selector and field.names and shown then
      return shown, NAMES[field.names][shown] or tostring(shown)
    end
  end
  return selector, nil
end

local function dissect_packet(tvb, pinfo, tree, offset, relid, class, context)
  local limit = tvb:len()
  local info = "relid " .. relid .. " "
  if not add_struct(tree, tvb, offset, limit, "vmpacket_descriptor", context) then
    tree:add_proto_expert_info(E.malformed, "a packet has a descriptor of 16 bytes")
    return info .. "short packet"
  end
  local kind, offset8 = tvb(offset, 2):le_uint(), tvb(offset + 2, 2):le_uint()
  local len8, flags = tvb(offset + 4, 2):le_uint(), tvb(offset + 6, 2):le_uint()
  local name = NAMES["vmpacket_descriptor.type"][kind] or string.format("packet type %d", kind)
  info = info .. name
  local trans = tvb(offset + 8, 8):le_uint64()
  tree:add_le(F.trans_id, tvb(offset + 8, 8)):set_generated()
  if offset8 < 2 or offset8 > len8 then
    tree:add_proto_expert_info(E.malformed, string.format("offset8 %d is not from 2 to len8 %d", offset8, len8))
    add_rest(tree, tvb, offset + 16, limit)
    return info
  end
  if len8 * 8 ~= limit - offset then
    if context.whole then
      tree:add_proto_expert_info(
        E.malformed, string.format("len8 says %d bytes, %d are there", len8 * 8, limit - offset))
    end
  end
  local start = math.min(offset + offset8 * 8, limit)
  local stop = math.min(offset + len8 * 8, limit)
  if kind == GPA_DIRECT then
    if start - offset >= 24 then
      local count = tvb(offset + 20, 4):le_uint()
      add_members(tree, tvb, offset, "vmdata_gpa_direct", { reserved = true, range_cnt = true }, context)
      local after = add_ranges(tree, tvb, offset + 24, start, math.min(count, 65536), context, false)
      if after then
        add_rest(tree, tvb, after, start)
      end
    else
      tree:add_proto_expert_info(E.malformed, "no room for the 24 bytes in front of the ranges")
    end
  elseif kind == XFER_PAGES then
    if start - offset >= 24 then
      local count = tvb(offset + 20, 4):le_uint()
      add_members(tree, tvb, offset, "vmtransfer_page_packet_header",
        { xfer_pageset_id = true, sender_owns_set = true, reserved = true, range_cnt = true }, context)
      local after = offset + 24
      for _ = 1, count do
        if after + 8 > start then
          tree:add_proto_expert_info(E.malformed, string.format("%d ranges do not fit", count))
          break
        end
        add_struct(tree, tvb, after, start, "vmtransfer_page_range", context)
        after = after + 8
      end
      add_rest(tree, tvb, after, start)
    else
      tree:add_proto_expert_info(E.malformed, "no room for the 24 bytes in front of the ranges")
    end
  elseif PACKET_HEADS[kind] then
    add_struct(tree, tvb, offset, math.max(start, offset + 16), PACKET_HEADS[kind], context, { d = true })
  else
    add_rest(tree, tvb, offset + 16, start)
  end
  local key = (context.to_host and "host " or "guest ") .. relid .. " " .. trans:tohex()
  local other = (context.to_host and "guest " or "host ") .. relid .. " " .. trans:tohex()
  local request = kind == COMPLETION and answer(pinfo, other) or nil
  local selector, what = dissect_payload(tvb, pinfo, tree, start, stop, class, context, request)
  if kind ~= COMPLETION and bit.band(flags, 1) == 1 then
    ask(pinfo, key, selector)
  end
  show_links(pinfo, tree)
  return info .. (what and (" " .. what) or "") .. " 0x" .. trans:tohex():gsub("^0+(.)", "%1")
end

-- a frame -----------------------------------------------------------------------------------------------------

function vmbus.dissector(tvb, pinfo, root)
  pinfo.cols.protocol = "VMBus"
  local tree = root:add(vmbus, tvb())
  local context = { to_host = false, whole = tvb:len() == tvb:reported_len(), selectors = {} }
  if not context.whole then
    tree:add_proto_expert_info(E.cut)
  end
  local header = STRUCTS[HEADER]
  if tvb:len() < header.size or tvb(0, 1):uint() ~= 1 or tvb(3, 1):uint() ~= header.size then
    tree:add_proto_expert_info(E.malformed, "not a packet of hvkernel")
    pinfo.cols.info = "not a packet of hvkernel"
    return tvb:len()
  end
  local head = tree:add(tvb(0, header.size), "Capture header")
  add_struct(head, tvb, 0, header.size, HEADER, context)
  local kind, relid = tvb(1, 1):uint(), tvb(8, 4):le_uint()
  context.to_host = tvb(2, 1):uint() == 1
  pinfo.cols.src = context.to_host and "guest" or "host"
  pinfo.cols.dst = context.to_host and "host" or "guest"
  local rest = tvb:len() > header.size and tvb(header.size) or tvb(0, 0)
  local info
  if kind == KIND_MESSAGE then
    local item = tree:add(F.message, rest)
    info = dissect_message(tvb, pinfo, item, header.size, context)
  elseif kind == KIND_PACKET then
    local item = tree:add(F.packet, rest)
    tree:add(F.relid, tvb(8, 4), relid):set_generated()
    show_offer(pinfo, tree, relid)
    info = dissect_packet(tvb, pinfo, item, header.size, relid, hex(tvb(16, 16)), context)
  else
    tree:add_proto_expert_info(E.malformed, string.format("kind %d is neither message nor packet", kind))
    info = "unknown kind"
  end
  pinfo.cols.info = info
  return tvb:len()
end

DissectorTable.get("wtap_encap"):add((wtap or wtap_encaps).USER0, vmbus)
