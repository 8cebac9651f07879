"""Links whose bandwidth follows a trace: traces, a trace generator, a user-space shaper and a tc-tbf shaper."""
