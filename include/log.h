/*
 * log.h - leveled log lines to stderr (foreground) or syslog (daemon).
 *
 * A message is logged once, where it is handled. Secrets never reach a format
 * (struct secret has no printable form). Thread-safe; one line is one write.
 */
#ifndef VARVE_LOG_H
#define VARVE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_sink { LOG_SINK_STDERR, LOG_SINK_SYSLOG };

/* Before any thread starts. Default: LOG_LEVEL_INFO on stderr. */
void log_setup(enum log_level level, enum log_sink sink);
enum log_level log_level(void);

void log_at(enum log_level level, const char *module, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* `module` is the file's prefix: log_error("writeback", "upload of %s failed: %s", …) */
#define log_error(module, ...) log_at(LOG_LEVEL_ERROR, module, __VA_ARGS__)
#define log_warn(module, ...) log_at(LOG_LEVEL_WARN, module, __VA_ARGS__)
#define log_info(module, ...) log_at(LOG_LEVEL_INFO, module, __VA_ARGS__)
#define log_debug(module, ...)                                                                                         \
	do {                                                                                                           \
		if (log_level() >= LOG_LEVEL_DEBUG)                                                                    \
			log_at(LOG_LEVEL_DEBUG, module, __VA_ARGS__);                                                  \
	} while (0)

#endif
