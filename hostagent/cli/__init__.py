"""What a person types: one small module per group of commands.

Stands above the daemon and owns words, exit codes and printing. Heavy imports stay inside the command that needs
them, so that `hostagent status` costs little; nothing here touches a log file or the state database itself.
"""
