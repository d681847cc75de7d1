-- The version of a conversation after a change by a script. An owner that knows the version before knows that it must
-- look again. No other change gives the same version: an owner's own versions have another form.
local VERSION = 't' .. time[1] .. '.' .. time[2]
