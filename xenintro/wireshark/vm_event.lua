-- What follows reads slots by the tables above. A packet of USER0 is one slot: a request (inbound) or a response
-- (outbound). USER1 is a whole ring page, USER2 guest memory that a policy read.

-- Installed, and named on the command line too: once is enough.
if _G.xenintro_dissector then return end
_G.xenintro_dissector = true

local proto = Proto("vm_event", "Xen vm_event")

-- Fields ------------------------------------------------------------------------------------------------------

local F = {}

local function declare(key, kind, ...)
  local abbreviation = "vm_event." .. key
  F[key] = ProtoField[kind](abbreviation, key:match("[^.]+$"), ...)
end

for key, kind in pairs(abi.fields) do
  local reason, member = key:match("^([^.]+)%.([^.]+)$")
  local named = abi.named[reason]
  local names = named and named.key == member and named.names or nil
  if kind == "bool" or kind == "none" then
    declare(key, kind)
  else
    declare(key, kind, kind == "uint64" and base.HEX or base.DEC, names)
  end
end
for reason, keys in pairs(abi.readable) do
  for _, key in ipairs(keys) do
    local whole = reason .. "." .. key
    if not F[whole] then
      local text = key == "access" or key == "register"
      declare(whole, text and "string" or "bool")
    end
  end
end
for letter in ("rwx"):gmatch(".") do declare("mem_access.access." .. letter, "bool") end
for _, key in ipairs({"domain", "abi", "arch", "direction", "reason", "answer", "rule", "level", "tags", "would", "message"}) do
  declare(key, "string")
end
declare("version", "uint32", base.DEC)
declare("flags", "uint64", base.HEX)
declare("reason_code", "uint32", base.DEC)
declare("vcpu_id", "int64", base.DEC)
declare("altp2m_idx", "uint32", base.DEC)
declare("unknown.version", "uint32", base.DEC)
declare("unknown.reason_code", "uint32", base.DEC)
declare("unknown.raw", "bytes")
declare("late", "bool")
declare("pause_ns", "uint64", base.DEC)
declare("request_in", "framenum", base.NONE, frametype.REQUEST)
declare("response_in", "framenum", base.NONE, frametype.RESPONSE)
declare("emul_read_data", "bytes")
declare("emul_insn_data", "bytes")
declare("fast_singlestep_p2midx", "uint32", base.DEC)
for _, key in ipairs({"req_prod", "req_event", "rsp_prod", "rsp_event", "unanswered", "ring_index", "slot"}) do
  declare("ring." .. key, "uint32", base.DEC)
end
declare("memory.gpa", "uint64", base.HEX)
declare("memory.data", "bytes")

local registered = {}
for _, field in pairs(F) do registered[#registered + 1] = field end
proto.fields = registered

local damaged = ProtoExpert.new("vm_event.damaged", "damaged slot", expert.group.MALFORMED, expert.severity.ERROR)
local too_late = ProtoExpert.new("vm_event.late.expert", "answered by the deadline", expert.group.RESPONSE_CODE, expert.severity.WARN)
proto.experts = {damaged, too_late}

proto.prefs.abi = Pref.string("Interface of the slots", "",
  "Such as mem_event-4.4 or vm_event-1-4.7, for captures that do not say; empty: by version and size of each slot")
proto.prefs.arch = Pref.enum("Architecture", 1, "Whose registers, for captures that do not say",
  {{1, "x86_64", 1}, {2, "arm64", 2}}, false)

local frame = {}
for _, name in ipairs({"interface_id", "interface_name", "interface_description", "packet_id", "comment", "time_epoch"}) do
  frame[name] = Field.new("frame." .. name)
end

local function said(name)
  local field = frame[name]()
  return field and field.value
end

-- Numbers -----------------------------------------------------------------------------------------------------

-- Of up to 32 bits: a number. Of 64: a UInt64.
local function number(range)
  if range:len() == 8 then return range:le_uint64() end
  return range:le_uint()
end

local function part(value, shift, mask)
  return bit32.band(bit32.rshift(value, shift), mask)
end

local function is_zero(range)
  return not range:bytes():tohex():find("[^0]")
end

local function hex(value)
  if type(value) == "number" then return string.format("0x%x", value) end
  return "0x" .. (value:tohex(16):lower():gsub("^0+(%x)", "%1"))
end

local function address(value)
  return string.format("%08x'%08x", value:higher(), value:lower())
end

local function gfn(value)
  if value == UInt64.max() then return "gfn ?" end
  return "gfn " .. hex(value)
end

local function duration(ns)
  for _, unit in ipairs({{1e3, 1, "ns"}, {1e6, 1e3, "µs"}, {1e9, 1e6, "ms"}}) do
    if ns < unit[1] then
      local value = ns / unit[2]
      return string.format((value < 10 and unit[2] > 1) and "%.1f %s" or "%.0f %s", value, unit[3])
    end
  end
  return string.format("%.1f s", ns / 1e9)
end

-- Which interface ---------------------------------------------------------------------------------------------

-- The layout, architecture and release that a text names: "vm_event-7 arm64 4.17".
local function named_interface(text)
  if not text then return nil end
  local id = text:match("vm_event%-%d+") or text:match("mem_event%-[%w.-]*%w")
  local layout = id and abi.interfaces[id]
  if not layout then return nil end
  local release = text:match("vm_event%-%d+%-(%d+%.%d+)") or text:match("%s(%d+%.%d+)")
  return {layout = layout, arch = text:match("arm64") or text:match("x86_64"), release = release}
end

-- What the file says, then the preference, then what version and size of the slot tell.
local function interface_of(version, size)
  local found = named_interface(said("interface_description")) or named_interface(proto.prefs.abi)
  if not found then
    local layout = abi.interfaces["vm_event-" .. version]
    if not layout or size and layout.slot_size ~= size then return nil end
    found = {layout = layout}
  end
  found.arch = found.arch or (proto.prefs.arch == 2 and "arm64" or "x86_64")
  return found
end

-- An event ----------------------------------------------------------------------------------------------------

local readable = {}

function readable.access(values)
  local text = ""
  for n, letter in ipairs({"r", "w", "x"}) do
    if part(values.flags, n - 1, 1) == 1 then text = text .. letter end
  end
  return text
end

function readable.gla_valid(values) return part(values.flags, 3, 1) == 1 end
function readable.fault_with_gla(values) return part(values.flags, 4, 1) == 1 end
function readable.fault_in_gpt(values) return part(values.flags, 5, 1) == 1 end

function readable.register(values, reason)
  local named = abi.named[reason]
  local value = values[named.key]
  local small = type(value) == "number" and value or (value:higher() == 0 and value:lower() or nil)
  if small and named.names[small] then return named.names[small] end
  if reason == "write_ctrlreg" then return "ctrlreg" .. tostring(value) end
  if reason == "descriptor_access" then return "descriptor" .. tostring(value) end
  return hex(value)
end

local what = {}

function what.mem_access(v)
  local letters = ""
  for letter in ("rwx"):gmatch(".") do letters = letters .. (v.access:find(letter) and letter or "-") end
  local text = string.format("%s  gfn %s+%s", letters, hex(v.gfn), (hex(v.offset):sub(3):gsub("^(%x?%x?)$", "00%1"):gsub("^0*(%x%x%x)$", "%1")))
  if v.gla_valid then text = text .. "  gla " .. address(v.gla) end
  if v.fault_in_gpt then text = text .. "  page walk" end
  return text
end

function what.write_ctrlreg(v)
  return v.register .. "  " .. (v.old_value and hex(v.old_value) or "?") .. " → " .. hex(v.new_value)
end
what.mov_to_msr = what.write_ctrlreg

function what.cpuid(v) return "leaf " .. hex(v.leaf) .. "  subleaf " .. hex(v.subleaf) end
function what.software_breakpoint(v) return gfn(v.gfn) end
what.singlestep, what.mem_paging, what.mem_sharing = what.software_breakpoint, what.software_breakpoint, what.software_breakpoint

function what.debug_exception(v)
  local text = gfn(v.gfn) .. "  type " .. tostring(v.type)
  if v.pending_dbg and v.pending_dbg ~= UInt64(0) then text = text .. "  pending " .. hex(v.pending_dbg) end
  return text
end

function what.descriptor_access(v) return v.register .. "  " .. (v.is_write ~= 0 and "write" or "read") end
function what.interrupt(v) return "vector " .. hex(v.vector) .. "  type " .. v.type end
function what.vmexit(v) return "exit " .. tostring(v.reason) .. "  qualification " .. hex(v.qualification) end
function what.io_instruction(v)
  return (v["in"] ~= 0 and "in" or "out") .. "  port " .. hex(v.port) .. "  " .. v.bytes .. " bytes"
end

-- One slot being dissected: where it is, what has been read, and the tree to show it in.
local Slot = {}
Slot.__index = Slot

function Slot.new(found, buffer, at, tree)
  return setmetatable({layout = found.layout, arch = found.arch, release = found.release, buffer = buffer, at = at,
    tree = tree, values = {}}, Slot)
end

function Slot:range(place) return self.buffer(self.at + place[2], place[3]) end

-- Bytes at an {offset, size}.
function Slot:bytes(place) return self.buffer(self.at + place[1], place[2]) end

function Slot:whole() return self.buffer(self.at, self.layout.slot_size) end

-- Shows a row of the tables under a key; returns its value.
function Slot:show(tree, key, row)
  local range = self:range(row)
  local value = number(range)
  if row[5] then
    value = part(value, row[4], row[5])
    tree:add(F[key], range, row[5] == 1 and value == 1 or row[5] ~= 1 and value)
  else
    tree:add_le(F[key], range)
  end
  return value
end

function Slot:header()
  local layout, header = self.layout, self.layout.header
  if header.version then self.version = self:show(self.tree, "version", header.version) end
  self.known = self.version == layout.version
  local code = header.reason and number(self:range(header.reason))
  self.reason = layout.only or self.known and layout.reasons[code] or nil
  self.reason_code = code
  self.name = self.reason and self.reason.name or "unknown"
  self.tree:add(F.reason, header.reason and self:range(header.reason) or self:whole(), self.name)
  if code then self.tree:add_le(F.reason_code, self:range(header.reason)) end
  self:vcpu(header.vcpu_id)
  if header.altp2m_idx then self:show(self.tree, "altp2m_idx", header.altp2m_idx) end
  self:flags(header.flags)
end

function Slot:vcpu(row)
  local range = self:range(row)
  local signed = self.layout.signed[1] == "vcpu_id"
  self.vcpu_id = signed and range:le_int() or range:le_uint()
  self.tree:add(F.vcpu_id, range, Int64.new(self.vcpu_id))
end

function Slot:flags(row)
  local range = self:range(row)
  local value = number(range)
  local low = type(value) == "number" and value or value:lower()
  local high = type(value) == "number" and 0 or value:higher()
  local item = self.tree:add_le(F.flags, range)
  local names = {}
  self.flag = {}
  for bit = 0, 63 do
    local name = self.layout.flags[bit]
    local set = part(bit < 32 and low or high, bit % 32, 1) == 1
    if name then
      self.flag[name] = set
      item:add(F["flags." .. name], range, set)
    end
    if set then names[#names + 1] = name or ("bit" .. bit) end
  end
  self.flag_names = table.concat(names, ", ")
  item:append_text(" (" .. self.flag_names .. ")")
end

function Slot:payload()
  local reason, values = self.reason, self.values
  if not reason then
    local tree = self.tree:add(F.unknown, self:whole())
    if self.version then tree:add(F["unknown.version"], self:whole(), self.version) end
    if self.reason_code then tree:add(F["unknown.reason_code"], self:whole(), self.reason_code) end
    tree:add(F["unknown.raw"], self:whole())
    self.what = "reason " .. self.reason_code .. (self.version and "  version " .. self.version or "") .. "  " .. self.layout.slot_size .. " bytes"
    return
  end
  local tree = self.tree:add(F[reason.name], self:bytes(self.layout.payload))
  for _, row in ipairs(reason.rows) do
    values[row[1]] = self:show(tree, reason.name .. "." .. row[1], row)
  end
  for key, value in pairs(reason.constants) do
    values[key] = value
    tree:add(F[reason.name .. "." .. key], self:bytes(self.layout.payload), value):set_generated()
  end
  for _, key in ipairs(abi.readable[reason.name] or {}) do
    local value = readable[key](values, reason.name)
    if values[key] == nil then tree:add(F[reason.name .. "." .. key], self:bytes(self.layout.payload), value):set_generated() end
    values[key] = value
    for letter in (key == "access" and "rwx" or ""):gmatch(".") do
      local done = value:find(letter) ~= nil
      tree:add(F["mem_access.access." .. letter], self:bytes(self.layout.payload), done):set_generated()
    end
  end
  self.what = what[reason.name] and what[reason.name](values) or ""
  tree:append_text("  " .. self.what)
end

-- The snapshot. A register that the hypervisor does not fill is absent, unless it is not zero.
function Slot:registers()
  local rows = self.layout.registers[self.arch]
  if #rows == 0 or not self.known then return end
  local unfilled = self.layout.unfilled[self.arch]
  local absent = {}
  for _, name in ipairs((unfilled[self.release] or unfilled.any)[self.name] or {}) do absent[name] = true end
  local tree = self.tree:add(F.regs, self:bytes(self.layout.registers_block))
  for _, row in ipairs(rows) do
    local name, range = row[1], self:range(row)
    if not (absent[name] and is_zero(range)) then
      if row[4] == "segment" then
        local packed = range:le_uint()
        local item = tree:add(F["regs." .. name], range)
        item:add(F["regs." .. name .. ".limit"], range, part(packed, 0, 0xFFFFF))
        item:add(F["regs." .. name .. ".ar"], range, part(packed, 20, 0xFFF))
      else
        tree:add_le(F["regs." .. name], range)
        if name == "rip" or name == "pc" then self.where = name .. " " .. address(range:le_uint64()) end
      end
    end
  end
end

function Slot:request()
  self:header()
  self:payload()
  self:registers()
end

-- A response echoes the payload, or leaves it zero; what else is in it depends on its flags.
function Slot:response()
  local layout = self.layout
  self:header()
  if self.flag.fast_singlestep and layout.fast_singlestep_p2midx then
    self:show(self.tree, "fast_singlestep_p2midx", layout.fast_singlestep_p2midx)
  elseif self.reason and not is_zero(self:bytes(layout.payload)) then
    self:payload()
  end
  if self.flag.set_registers then
    self:registers()
  elseif self.flag.set_emul_read_data and layout.emul_read then
    local offset, room = layout.emul_read[1] + 4, layout.emul_read[2] - 4
    local size = math.min(self:bytes({layout.emul_read[1], 4}):le_uint(), room)
    if size > 0 then self.tree:add(F.emul_read_data, self:bytes({offset, size})) end
  elseif self.flag.set_emul_insn_data and layout.emul_insn then
    self.tree:add(F.emul_insn_data, self:bytes(layout.emul_insn))
  end
end

-- Requests and their responses --------------------------------------------------------------------------------

-- Requests without a response so far, by interface and packet id; and, by frame, the other half of each pair.
local waiting, request_of, response_of, pause_of = {}, {}, {}, {}

function proto.init()
  waiting, request_of, response_of, pause_of = {}, {}, {}, {}
end

local function remember(slot, pinfo, is_response)
  local id, interface, time = said("packet_id"), said("interface_id"), said("time_epoch")
  if not id or not interface or request_of[pinfo.number] or response_of[pinfo.number] then return end
  id = type(id) == "number" and id or id:tonumber()
  waiting[interface] = waiting[interface] or {}
  local ids = waiting[interface]
  if not is_response then
    ids[id] = {pinfo.number, slot.flag.vcpu_paused and time}
  elseif ids[id] then
    local request, since = ids[id][1], ids[id][2]
    request_of[pinfo.number], response_of[request] = request, pinfo.number
    if since then pause_of[pinfo.number] = (time.secs - since.secs) * 1e9 + (time.nsecs - since.nsecs) end
    ids[id] = nil
  end
end

local function unquote(text)
  return (text:gsub("%%(%x%x)", function(digits) return string.char(tonumber(digits, 16)) end))
end

-- What the comments on a response say: "NAME [rule=RULE] [level=LEVEL] [tags=A,B] [would=NAME] [late]", a message.
local function remarks()
  local comments = {frame.comment()}
  local remark = {answer = "allow"}
  for n, word in (function()
    local n, words = 0, comments[1] and comments[1].value:gmatch("[^ ]+") or function() end
    return function() n = n + 1; local word = words(); if word then return n, word end end
  end)() do
    local key, value = word:match("^([^=]+)=(.*)$")
    if n == 1 then remark.answer = unquote(word)
    elseif key then remark[key] = value
    elseif word == "late" then remark.late = true end
  end
  remark.message = comments[2] and comments[2].value
  return remark
end

local function show_answer(slot, tree, pinfo)
  local remark = remarks()
  local text = remark.answer:find("^allow") and remark.answer or remark.answer:upper()
  tree:add(F.answer, remark.answer):set_generated()
  for _, key in ipairs({"rule", "level", "would"}) do
    if remark[key] then
      remark[key] = unquote(remark[key])
      tree:add(F[key], remark[key]):set_generated()
    end
  end
  for tag in (remark.tags or ""):gmatch("[^,]+") do tree:add(F.tags, unquote(tag)):set_generated() end
  if remark.message then tree:add(F.message, remark.message):set_generated() end
  tree:add(F.late, remark.late == true):set_generated()
  if remark.late then tree:add_proto_expert_info(too_late) end
  local pause = pause_of[pinfo.number]
  if pause and pause >= 0 then
    tree:add(F.pause_ns, UInt64.new(pause % 2 ^ 32, math.floor(pause / 2 ^ 32))):set_generated()
    text = text .. "  " .. duration(pause)
  end
  if remark.would then text = text .. "  would " .. remark.would end
  if remark.rule then text = text .. "  " .. remark.rule end
  if remark.message then text = text .. "  " .. remark.message end
  return text
end

local function show_link(tree, key, number)
  if number then tree:add(F[key], number):set_generated() end
end

local function generated(tree, found)
  local domain = (said("interface_name") or ""):match("^xen:(.*):[^:]*$")
  if domain then tree:add(F.domain, domain):set_generated() end
  tree:add(F.abi, found.layout.id):set_generated()
  tree:add(F.arch, found.arch):set_generated()
end

local function line(...)
  local words = {}
  for _, word in ipairs({...}) do
    if word ~= "" then words[#words + 1] = word end
  end
  return table.concat(words, "  ")
end

local function show_damage(buffer, pinfo, root, text)
  pinfo.cols.info = text
  root:add(proto, buffer()):add_proto_expert_info(damaged, text)
  return buffer:len()
end

-- A packet of another program's USER0 is left alone, as data.
local function is_ours() return (said("interface_name") or ""):find("^xen:") ~= nil end

local function dissect_slot(buffer, pinfo, root)
  local size = buffer:len()
  local found = interface_of(size >= 4 and buffer(0, 4):le_uint() or 0, size)
  if not found and not is_ours() then return 0 end
  pinfo.cols.protocol = "vm_event"
  if not found then
    return show_damage(buffer, pinfo, root, size .. " bytes of an unknown interface")
  end
  if size ~= found.layout.slot_size then
    return show_damage(buffer, pinfo, root,
      string.format("a slot of %d bytes; those of %s have %d", size, found.layout.id, found.layout.slot_size))
  end
  local is_response = pinfo.p2p_dir == P2P_DIR_SENT
  local tree = root:add(proto, buffer())
  local slot = Slot.new(found, buffer, 0, tree)
  generated(tree, found)
  tree:add(F.direction, is_response and "response" or "request"):set_generated()
  slot[is_response and "response" or "request"](slot)
  remember(slot, pinfo, is_response)
  local vcpu = "v" .. slot.vcpu_id
  pinfo.cols.src = is_response and "monitor" or vcpu
  pinfo.cols.dst = is_response and vcpu or "monitor"
  local text
  if is_response then
    show_link(tree, "request_in", request_of[pinfo.number])
    text = line(slot.name, show_answer(slot, tree, pinfo))
  else
    show_link(tree, "response_in", response_of[pinfo.number])
    text = line(slot.name, slot.what or "", slot.where or "")
  end
  pinfo.cols.info = text
  tree:append_text(", " .. (is_response and "response to " or "") .. text)
  return size
end

-- A ring page: its indices, and the requests on it that have no response.
local function dissect_page(buffer, pinfo, root)
  local page = abi.page
  local whole = buffer:len() == page.size
  local found = interface_of(whole and buffer(page.slot0, 4):le_uint() or 0)
  if not found and not is_ours() then return 0 end
  pinfo.cols.protocol = "vm_event"
  if not found or not whole then
    return show_damage(buffer, pinfo, root,
      whole and "a ring page of an unknown interface" or "a ring page of " .. buffer:len() .. " bytes")
  end
  local tree = root:add(proto, buffer(), "ring page")
  generated(tree, found)
  local index = {}
  for n, name in ipairs({"req_prod", "req_event", "rsp_prod", "rsp_event"}) do
    local range = buffer(4 * (n - 1), 4)
    index[name] = range:le_uint()
    tree:add_le(F["ring." .. name], range)
  end
  local unanswered = (index.req_prod - index.rsp_prod) % 2 ^ 32
  tree:add(F["ring.unanswered"], buffer(0, page.indices), unanswered):set_generated()
  pinfo.cols.info = string.format("ring page  req_prod %d  rsp_prod %d  %d unanswered", index.req_prod, index.rsp_prod, unanswered)
  if unanswered > found.layout.nr_slots then
    tree:add_proto_expert_info(damaged, "impossible ring indices")
    return buffer:len()
  end
  for n = 0, unanswered - 1 do
    local at = (index.rsp_prod + n) % 2 ^ 32
    local place = at % found.layout.nr_slots
    local start = page.slot0 + place * found.layout.slot_size
    local branch = tree:add(proto, buffer(start, found.layout.slot_size), "request")
    branch:add(F["ring.ring_index"], at):set_generated()
    branch:add(F["ring.slot"], place):set_generated()
    local slot = Slot.new(found, buffer, start, branch)
    slot:request()
    branch:append_text("  " .. line("v" .. slot.vcpu_id, slot.name, slot.what or "", slot.where or ""))
  end
  return buffer:len()
end

-- Guest memory: the guest physical address, then the bytes from there on.
local function dissect_memory(buffer, pinfo, root)
  if not is_ours() then return 0 end
  pinfo.cols.protocol = "vm_event"
  if buffer:len() < 8 then return show_damage(buffer, pinfo, root, "guest memory without an address") end
  local tree = root:add(proto, buffer(), "guest memory read by a policy")
  tree:add_le(F["memory.gpa"], buffer(0, 8))
  local size = buffer:len() - 8
  if size > 0 then tree:add(F["memory.data"], buffer(8, size)) end
  pinfo.cols.info = "guest memory  gpa " .. hex(buffer(0, 8):le_uint64()) .. "  " .. size .. " bytes"
  return buffer:len()
end

proto.dissector = dissect_slot
local pages = Proto("vm_event_page", "Xen vm_event ring page")
pages.dissector = dissect_page
local memory = Proto("vm_event_memory", "Xen vm_event guest memory")
memory.dissector = dissect_memory

local encapsulations = DissectorTable.get("wtap_encap")
encapsulations:add(wtap.USER0, proto)
encapsulations:add(wtap.USER1, pages)
encapsulations:add(wtap.USER2, memory)
