-- Returns the states of all endpoints.
--
-- KEYS  1 endpoints
-- Answers OK {field value ..}; a field is `BOT/NAME:KEY`
return {'OK', now, call('HGETALL', KEYS[1])}
