"""The central scheduler: which engine works on which request, and where each request stands.

`core.Scheduler` is a state machine without I/O or clock: messages and the time go in, effects come out.
`service.SchedulerService` gives it both. Decisions are those of `dualpath_policy`.
"""
